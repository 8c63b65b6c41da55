/* A process of the workload: its commands, each a function of the line.
 *
 * Whatever a command remembers lies in the slot. Before the first command the stack and the program's own pages
 * are touched, so that a later command faults only for what it is there to touch.
 */
#define STACK_TOUCHED (96UL << 10)
#define LOOP_STACK_PAGES 2 /* of the stack, that the command loop writes to */

static union slot_page *slots;
static struct slot *me;

static void fail_with(const char *what, long result)
{
	char *to = me->problem;
	unsigned value = (unsigned)-result;

	for (int i = 0; i < 120 && what[i]; i++)
		*to++ = what[i];
	if (is_error(result)) {
		for (const char *text = ": error "; *text; text++)
			*to++ = *text;
		if (value >= 1000) *to++ = '0' + value / 1000;
		if (value >= 100) *to++ = '0' + value / 100 % 10;
		if (value >= 10) *to++ = '0' + value / 10 % 10;
		*to++ = '0' + value % 10;
	}
	*to = 0;
}

static void expect(const char *what, long result)
{
	if (is_error(result))
		fail_with(what, result);
}

/* ---- mappings ---- */

static struct mapping *mapping_named(const char *name)
{
	for (int i = 0; i < MAX_MAPPINGS; i++)
		if (me->mapping[i].name[0] && same(me->mapping[i].name, name))
			return &me->mapping[i];
	fail_with("there is no such mapping", 0);
	return NULL;
}

static void note_mapping(const char *name, uint64_t start, uint64_t length)
{
	struct mapping *unused = NULL;

	for (int i = MAX_MAPPINGS - 1; i >= 0; i--)
		if (!me->mapping[i].name[0] || same(me->mapping[i].name, name))
			if (!unused || !same(unused->name, name))
				unused = &me->mapping[i];
	if (!unused) {
		fail_with("a process has at most 60 mappings", 0);
		return;
	}
	copy_name(unused->name, name);
	unused->start = start;
	unused->length = length;
}

/* Find the part of a mapping that off= and len= name; return the mapping, or NULL. */
static struct mapping *range_of(const struct line *line, uint64_t *start, uint64_t *end)
{
	struct mapping *map = line->count > 1 ? mapping_named(line->word[1]) : NULL;
	uint64_t last;

	if (!map) {
		if (!me->problem[0])
			fail_with("needs a mapping", 0);
		return NULL;
	}
	last = map->start + map->length;
	*start = map->start + number_option(line, "off", 0);
	if (*start > last)
		*start = last;
	*end = *start + number_option(line, "len", last - *start);
	if (*end > last)
		*end = last;
	return map;
}

static void do_mmap(const struct line *line)
{
	uint64_t align = number_option(line, "align", 0);
	uint64_t length = line->count > 2 ? (number(line->word[2]) + PAGE - 1) & ~(PAGE - 1) : 0;
	const char *path = option_of(line, "file");
	long rights = has_flag(line, "none") ? PROT_NONE : has_flag(line, "ro") ? PROT_READ : PROT_READ | PROT_WRITE;
	long how = has_flag(line, "shared") ? MAP_SHARED : MAP_PRIVATE;
	long fd = -1, at;
	uint64_t hint = 0;

	if (!length) {
		fail_with("mmap needs a name and a size", 0);
		return;
	}
	how |= has_flag(line, "populate") ? MAP_POPULATE : 0;
	how |= has_flag(line, "locked") ? MAP_LOCKED : 0;
	how |= has_flag(line, "noreserve") ? MAP_NORESERVE : 0;
	if (path) {
		fd = sys_open(path, O_RDWR, 0);
		if (is_error(fd)) {
			fail_with("mmap: the file cannot be opened", fd);
			return;
		}
	} else {
		how |= MAP_ANONYMOUS;
	}
	if (align) {
		/* Find room for the mapping and what alignment may cost, then take the aligned part of it. */
		at = sys_mmap(0, length + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (!is_error(at)) {
			sys2(SYS_munmap, at, length + align);
			hint = ((uint64_t)at + align - 1) & ~(align - 1);
			how |= MAP_FIXED_NOREPLACE;
		}
	}
	at = sys_mmap(hint, length, rights, how, fd, number_option(line, "off", 0));
	if (fd >= 0)
		sys1(SYS_close, fd);
	if (is_error(at))
		fail_with("mmap", at);
	else
		note_mapping(line->word[1], (uint64_t)at, length);
}

static void do_munmap(const struct line *line)
{
	uint64_t start, end;
	struct mapping *map = range_of(line, &start, &end);
	long result;

	if (!map)
		return;
	result = sys2(SYS_munmap, start, end - start);
	expect("munmap", result);
	if (!is_error(result) && start == map->start && end == map->start + map->length)
		map->name[0] = 0;
}

static const struct {
	const char *name;
	int advice;
} ADVICES[] = {
	{ "normal", MADV_NORMAL }, { "random", MADV_RANDOM }, { "sequential", MADV_SEQUENTIAL },
	{ "willneed", MADV_WILLNEED }, { "dontneed", MADV_DONTNEED }, { "free", MADV_FREE },
	{ "remove", MADV_REMOVE }, { "dontfork", MADV_DONTFORK }, { "dofork", MADV_DOFORK },
	{ "mergeable", MADV_MERGEABLE }, { "unmergeable", MADV_UNMERGEABLE },
	{ "hugepage", MADV_HUGEPAGE }, { "nohugepage", MADV_NOHUGEPAGE },
	{ "cold", MADV_COLD }, { "pageout", MADV_PAGEOUT },
	{ "populate_read", MADV_POPULATE_READ }, { "populate_write", MADV_POPULATE_WRITE },
};

static void do_madvise(const struct line *line)
{
	uint64_t start, end, stride, size;
	int advice = -1;

	for (unsigned i = 0; i < COUNT(ADVICES) && line->count > 2; i++)
		if (same(ADVICES[i].name, line->word[2]))
			advice = ADVICES[i].advice;
	if (advice < 0) {
		fail_with("there is no such advice", 0);
		return;
	}
	if (!range_of(line, &start, &end))
		return;
	stride = number_option(line, "stride", 0);
	size = number_option(line, "size", PAGE);
	if (!stride) {
		expect("madvise", sys3(SYS_madvise, start, end - start, advice));
		return;
	}
	for (; start < end; start += stride)
		expect("madvise", sys3(SYS_madvise, start, start + size > end ? end - start : size, advice));
}

static void do_mprotect(const struct line *line)
{
	uint64_t start, end;
	long rights = has_flag(line, "none") ? PROT_NONE : has_flag(line, "ro") ? PROT_READ : PROT_READ | PROT_WRITE;

	if (range_of(line, &start, &end))
		expect("mprotect", sys3(SYS_mprotect, start, end - start, rights));
}

static void do_lock(const struct line *line)
{
	uint64_t start, end;

	if (!range_of(line, &start, &end))
		return;
	if (same(line->word[0], "mlock"))
		expect("mlock", sys2(SYS_mlock, start, end - start));
	else if (same(line->word[0], "munlock"))
		expect("munlock", sys2(SYS_munlock, start, end - start));
	else
		expect("mlockonfault", sys3(SYS_mlock2, start, end - start, 1 /* MLOCK_ONFAULT */));
}

static void do_msync(const struct line *line)
{
	uint64_t start, end;

	if (range_of(line, &start, &end))
		expect("msync", sys3(SYS_msync, start, end - start, MS_SYNC));
}

static void do_mremap(const struct line *line)
{
	struct mapping *map = line->count > 2 ? mapping_named(line->word[1]) : NULL;
	uint64_t length;
	long at;

	if (!map)
		return;
	length = (number(line->word[2]) + PAGE - 1) & ~(PAGE - 1);
	at = sys4(SYS_mremap, map->start, map->length, length, MREMAP_MAYMOVE);
	expect("mremap", at);
	if (!is_error(at)) {
		map->start = (uint64_t)at;
		map->length = length;
	}
}

/* brk N SIZE: SIZE bytes more of heap, as mapping N; brkgrow N SIZE: mapping N grows by SIZE, or begins. */
static void do_brk(const struct line *line)
{
	uint64_t size = line->count > 2 ? number(line->word[2]) : 0;
	uint64_t start, length = size;
	struct mapping *map = NULL;
	long end = sys1(SYS_brk, 0);

	if (!size) {
		fail_with("brk needs a name and a size", 0);
		return;
	}
	start = ((uint64_t)end + PAGE - 1) & ~(PAGE - 1);
	for (int i = 0; i < MAX_MAPPINGS && same(line->word[0], "brkgrow"); i++)
		if (same(me->mapping[i].name, line->word[1]))
			map = &me->mapping[i];
	if (sys1(SYS_brk, start + size) != (long)(start + size)) {
		fail_with("brk failed", 0);
		return;
	}
	if (map && map->start + map->length == start) {
		length = map->length + size;
		start = map->start;
	}
	note_mapping(line->word[1], start, length);
}

static void touch_stack(uint64_t size)
{
	for (uint64_t below = PAGE; below <= size; below += PAGE)
		*(volatile char *)(me->stack_base - below) = 1;
}

static void do_stack(const struct line *line)
{
	if (line->count > 1)
		touch_stack(number(line->word[1]));
}

/* ---- accesses ---- */

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005UL + 1442695040888963407UL;
	return *state >> 33;
}

static void access_page(uint64_t address, int write, int value)
{
	if (write)
		*(volatile char *)address = (char)value;
	else
		(void)*(volatile char *)address;
}

static void do_access(const struct line *line)
{
	int write = same(line->word[0], "write");
	uint64_t value = number_option(line, "val", 1);
	uint64_t stride = number_option(line, "stride", PAGE);
	uint64_t loops = number_option(line, "loops", 1);
	uint64_t start, end, seed;

	if (!range_of(line, &start, &end) || start == end)
		return;
	if (has_flag(line, "rand")) {
		seed = number_option(line, "seed", 0);
		for (uint64_t left = number_option(line, "count", 0); left; left--)
			access_page(start + next_random(&seed) % ((end - start) / PAGE) * PAGE, write, value);
		return;
	}
	while (loops--) {
		uint64_t steps = (end - start + stride - 1) / stride;

		for (uint64_t i = 0; i < steps; i++)
			access_page(start + (has_flag(line, "back") ? steps - 1 - i : i) * stride, write, value);
	}
}

static void do_fill(const struct line *line)
{
	uint64_t start, end;
	struct mapping *map = range_of(line, &start, &end);

	if (!map)
		return;
	for (; start < end; start += PAGE) {
		if (line->count < 3 || fill_page((volatile uint64_t *)start, line->word[2], (start - map->start) / PAGE)) {
			fail_with("there is no such pattern", 0);
			return;
		}
	}
}

/* ---- files ---- */

static struct file *file_named(const struct line *line)
{
	for (int i = 0; i < MAX_FILES && line->count > 1; i++)
		if (me->file[i].name[0] && same(me->file[i].name, line->word[1]))
			return &me->file[i];
	fail_with("there is no such open file", 0);
	return NULL;
}

static void do_fopen(const struct line *line)
{
	long how = O_RDWR;

	if (line->count < 3) {
		fail_with("fopen needs a name and a path", 0);
		return;
	}
	how |= has_flag(line, "create") ? O_CREAT : 0;
	how |= has_flag(line, "direct") ? O_DIRECT : 0;
	for (int i = 0; i < MAX_FILES; i++) {
		if (me->file[i].name[0])
			continue;
		me->file[i].fd = sys_open(line->word[2], how, 0644);
		expect("fopen", me->file[i].fd);
		if (!is_error(me->file[i].fd))
			copy_name(me->file[i].name, line->word[1]);
		return;
	}
	fail_with("a process has at most 16 open files", 0);
}

static void do_file(const struct line *line)
{
	static const char *const NAMES[] = { "normal", "random", "sequential", "willneed", "dontneed", "noreuse" };
	const char *verb = line->word[0];
	struct file *file = file_named(line);

	if (!file)
		return;
	if (same(verb, "fclose")) {
		expect(verb, sys1(SYS_close, file->fd));
		file->name[0] = 0;
	} else if (same(verb, "fsync")) {
		expect(verb, sys1(SYS_fsync, file->fd));
	} else if (same(verb, "ftrunc") && line->count > 2) {
		expect(verb, sys2(SYS_ftruncate, file->fd, number(line->word[2])));
	} else if (same(verb, "readahead") && line->count > 3) {
		expect(verb, sys3(SYS_readahead, file->fd, number(line->word[2]), number(line->word[3])));
	} else if (same(verb, "fadvise") && line->count > 4) {
		for (unsigned i = 0; i < COUNT(NAMES); i++) {
			if (same(NAMES[i], line->word[4])) {
				expect(verb, sys4(SYS_fadvise64, file->fd, number(line->word[2]), number(line->word[3]), i));
				return;
			}
		}
		fail_with("there is no such advice", 0);
	} else {
		fail_with("needs more words", 0);
	}
}

/* Files are read to and written from the lower part of the stack that was touched. */
static void do_transfer(const struct line *line)
{
	const char *verb = line->word[0];
	long call = same(verb, "fwrite") || same(verb, "fwrand") ? SYS_pwrite64 : SYS_pread64;
	uint64_t chunk = number_option(line, "chunk", PAGE);
	struct file *file = file_named(line);
	uint64_t from, length, stride, seed;
	char *buffer = (char *)(me->stack_base - STACK_TOUCHED);
	long result = 0;

	if (!file)
		return;
	if (line->count < 4 || !chunk || chunk > STACK_TOUCHED - (LOOP_STACK_PAGES + 1) * PAGE) {
		fail_with("needs an offset and a length, and chunk= of at most 84K", 0);
		return;
	}
	from = number(line->word[2]);
	length = number(line->word[3]);
	if (same(verb, "frand") || same(verb, "fwrand")) {
		seed = number_option(line, "seed", 0);
		for (uint64_t left = number_option(line, "count", 0); left && !is_error(result); left--)
			result = sys4(call, file->fd, buffer, chunk, from + next_random(&seed) % (length / chunk) * chunk);
	} else {
		stride = number_option(line, "stride", chunk);
		for (uint64_t at = 0; at < length && !is_error(result); at += stride)
			result = sys4(call, file->fd, buffer, chunk, from + at);
	}
	expect(verb, result);
}

/* ---- processes ---- */

static void touch_program(void)
{
	const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);

	for (unsigned long left = getauxval(AT_PHNUM); left; left--, header++) {
		uint64_t start = header->p_vaddr & ~(PAGE - 1);

		if (header->p_type == PT_LOAD)
			sys3(SYS_madvise, start, (header->p_vaddr + header->p_memsz - start + PAGE - 1) & ~(PAGE - 1),
			     MADV_POPULATE_READ);
	}
}

/* Write the pages of the stack that the command loop writes to: that of process_main's frame, and the next. */
static void touch_loop_stack(void)
{
	for (unsigned i = 0; i < LOOP_STACK_PAGES; i++) {
		volatile char *at = (volatile char *)(me->stack_base - i * PAGE);

		*at = *at;
	}
}

/* fork C: the controller has named the child's slot. The child waits, without writing to any private page,
 * until the controller says go; by then the parent has its own copy of the loop's stack. The child's parent is
 * the controller (CLONE_PARENT), which collects all processes. */
static void do_fork(const struct line *line)
{
	struct slot *child = &slots[me->child].slot;
	long flags = 0x8000 /* CLONE_PARENT */ | 17 /* SIGCHLD */;
	long stack = 0, parent_tid = 0, result;

	(void)line;
	memcpy(child->mapping, me->mapping, sizeof me->mapping);
	memcpy(child->file, me->file, sizeof me->file);
	child->stack_base = me->stack_base;
	{
		register long r10 __asm__("r10") = 0;
		register long r8 __asm__("r8") = 0;
		register long from __asm__("r12") = child->command[0];
		register char *to __asm__("r13") = &child->go;

		__asm__ volatile("syscall\n\t"
				 "test %%rax, %%rax\n\t"
				 "jnz 1f\n\t"
				 "mov %[from], %%rdi\n\t"
				 "mov %[to], %%rsi\n\t"
				 "mov $1, %%edx\n\t"
				 "xor %%eax, %%eax\n\t"
				 "syscall\n\t"
				 "xor %%eax, %%eax\n"
				 "1:"
				 : "=a"(result), "+D"(flags), "+S"(stack), "+d"(parent_tid)
				 : "a"(SYS_clone), "r"(r10), "r"(r8), [from] "r"(from), [to] "r"(to)
				 : "rcx", "r11", "memory", "cc");
	}
	touch_loop_stack();
	if (is_error(result)) {
		fail_with("fork", result);
		return;
	}
	if (result) {
		child->pid = result;
		return;
	}
	me = child; /* the one private page that only the child writes */
	touch_program();
}

static void do_vfork_exec(const struct line *line)
{
	static char *const ARGUMENTS[] = { "/init", "nothing", "now", "!", NULL };
	static char *const NOTHING[] = { NULL };
	int status;
	long pid;

	(void)line;
	pid = vfork();
	if (!pid) {
		sys3(SYS_execve, "/init", ARGUMENTS, NOTHING);
		sys1(SYS_exit_group, 1);
	}
	expect("vfork_exec", pid);
	if (!is_error(pid))
		sys4(SYS_wait4, pid, &status, 0, 0);
}

static void do_exit(const struct line *line)
{
	(void)line;
	sys1(SYS_exit_group, 0);
}

static const struct {
	const char *verb;
	void (*run)(const struct line *line);
} PROCESS_COMMANDS[] = {
	{ "mmap", do_mmap }, { "munmap", do_munmap }, { "madvise", do_madvise }, { "mprotect", do_mprotect },
	{ "mlock", do_lock }, { "mlockonfault", do_lock }, { "munlock", do_lock }, { "msync", do_msync },
	{ "mremap", do_mremap }, { "brk", do_brk }, { "brkgrow", do_brk }, { "stack", do_stack },
	{ "read", do_access }, { "write", do_access }, { "fill", do_fill }, { "fork", do_fork }, { "exit", do_exit },
	{ "vfork_exec", do_vfork_exec }, { "fopen", do_fopen }, { "fclose", do_file }, { "fsync", do_file },
	{ "ftrunc", do_file }, { "readahead", do_file }, { "fadvise", do_file }, { "fread", do_transfer },
	{ "fwrite", do_transfer }, { "frand", do_transfer }, { "fwrand", do_transfer },
};

static void do_line(void)
{
	struct line line;

	me->problem[0] = 0;
	split(me->line, &line);
	for (unsigned i = 0; i < COUNT(PROCESS_COMMANDS); i++) {
		if (line.count && same(PROCESS_COMMANDS[i].verb, line.word[0])) {
			PROCESS_COMMANDS[i].run(&line);
			return;
		}
	}
	fail_with("there is no such command", 0);
}

/* libc has the kernel note in its memory on which CPU a thread runs, whenever that is scheduled: after a fork, a
 * copy of a page at some time or other. */
static void stop_rseq(void)
{
	sys4(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

static void process_main(int index)
{
	char byte = 0;

	stop_rseq();
	slots = map_slots();
	me = &slots[index].slot;
	me->stack_base = (uint64_t)__builtin_frame_address(0) & ~(PAGE - 1);
	touch_stack(STACK_TOUCHED);
	touch_program();
	/* The first reply says that the process is there. */
	for (;;) {
		sys3(SYS_write, me->reply[1], &byte, 1);
		if (sys3(SYS_read, me->command[0], &byte, 1) != 1)
			sys1(SYS_exit_group, 0);
		do_line();
	}
}
