/* A process's commands on its memory: mapping, advice, locks, heap and stack, and touching pages.
 *
 * Whatever a command remembers lies in the slot, so that only the pages it is about are touched.
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

