/* The controller: PID 1, with all of its memory locked.
 *
 * /script has one command a line, "NUMBER WHO COMMAND", WHO being "-" for the controller and "A&" for a command
 * of A's that runs beside the next lines. Lines with number 0 prepare the machine; "begin" is the first moment
 * that is recorded.
 */
#define SCRIPT_BYTES (1UL << 20)

static char *script; /* [SCRIPT_BYTES] */
static long line_number;

static struct slot *slot_named(const char *name)
{
	for (int i = 0; i < NR_SLOTS; i++)
		if (slots_of_all[i].slot.name[0] && same(slots_of_all[i].slot.name, name))
			return &slots_of_all[i].slot;
	return NULL;
}

/* Take a slot for a name; that of a dead process of the name, if there is one. */
static struct slot *new_slot(const char *name)
{
	struct slot *slot = slot_named(name);

	if (slot && slot->pid)
		give_up(line_number, "there is such a process already: ", name);
	for (int i = 0; i < NR_SLOTS && !slot; i++)
		if (!slots_of_all[i].slot.name[0])
			slot = &slots_of_all[i].slot;
	if (!slot)
		give_up(line_number, "a workload has at most 32 processes", "");
	copy_name(slot->name, name);
	slot->pid = slot->busy = 0;
	slot->problem[0] = 0;
	memset(slot->mapping, 0, sizeof slot->mapping);
	memset(slot->file, 0, sizeof slot->file);
	return slot;
}

/* Collect processes that died; say so of those that the workload did not end. */
static void collect(struct slot *expected)
{
	for (;;) {
		int status = 0;
		long pid = sys4(SYS_wait4, -1, &status, WNOHANG, 0);

		if (pid <= 0)
			return;
		for (int i = 0; i < NR_SLOTS; i++) {
			struct slot *slot = &slots_of_all[i].slot;

			if (!slot->name[0] || slot->pid != pid)
				continue;
			slot->pid = slot->busy = 0;
			if (slot == expected)
				continue;
			put("= died ");
			put(slot->name);
			put(" ");
			put_number(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
			put("\n");
			if (WIFSIGNALED(status) && WTERMSIG(status) != 9)
				give_up(slot->line_number, "the process had no such memory or no right to it: ", slot->name);
		}
	}
}

static void await_death(struct slot *slot)
{
	while (slot->pid) {
		collect(slot);
		if (slot->pid)
			sleep_ms(1);
	}
}

/* Wait until a process has done its command, or died. */
static void await_reply(struct slot *slot)
{
	char byte;

	while (slot->pid && slot->busy) {
		struct { int fd; short events, seen; } poll = { (int)slot->reply[0], 1 /* POLLIN */, 0 };

		if (sys3(SYS_poll, &poll, 1, 20) == 1 && sys3(SYS_read, slot->reply[0], &byte, 1) == 1)
			slot->busy = 0;
		else
			collect(NULL);
	}
	collect(NULL);
	if (slot->problem[0])
		give_up(slot->line_number, "", slot->problem);
}

/* Let processes that were killed while they waited for a command end: the others sleep. */
static void await_quiet(void)
{
	for (int tries = 0; tries < 2000; tries++) {
		int restless = 0;

		collect(NULL);
		for (int i = 0; i < NR_SLOTS; i++) {
			const struct slot *slot = &slots_of_all[i].slot;

			restless |= slot->name[0] && slot->pid && !slot->busy && state_of(slot->pid, NULL) != 'S';
		}
		if (!restless)
			return;
		sleep_ms(1);
	}
}

static void send_line(struct slot *slot, const char *text)
{
	size_t length = strlen(text);

	if (length >= sizeof slot->line)
		give_up(line_number, "the line is too long", "");
	memcpy(slot->line, text, length + 1);
	slot->busy = 1;
	slot->line_number = line_number;
	sys3(SYS_write, slot->command[1], "", 1);
}

/* ---- commands ---- */

static void do_spawn(const struct line *line)
{
	char number_text[3] = "00";
	char *arguments[] = { "/init", "process", number_text, NULL };
	char *nothing[] = { NULL };
	const char *adjustment = option_of(line, "oom");
	struct slot *slot = new_slot(line->word[1]);
	long index = (union slot_page *)slot - slots_of_all;
	long pid;

	number_text[0] = '0' + index / 10;
	number_text[1] = '0' + index % 10;
	slot->busy = 1;
	slot->line_number = line_number;
	pid = vfork();
	if (!pid) {
		if (adjustment)
			write_file("/proc/self/oom_score_adj", adjustment);
		sys3(SYS_execve, "/init", arguments, nothing);
		sys1(SYS_exit_group, 1);
	}
	if (pid < 0)
		give_up(line_number, "spawn failed", "");
	slot->pid = pid;
	await_reply(slot);
}

static void do_fork_of(struct slot *parent, char *text, struct line *line)
{
	struct slot *child;

	if (line->count < 2)
		give_up(line_number, "fork needs a name", "");
	child = new_slot(line->word[1]);
	parent->child = (union slot_page *)child - slots_of_all;
	send_line(parent, text);
	await_reply(parent);
	if (!child->pid)
		return;
	child->busy = 1;
	child->line_number = line_number;
	sys3(SYS_write, child->command[1], "", 1);
	await_reply(child);
}

static void for_process(char *who, char *text)
{
	size_t length = strlen(who);
	int background = who[length - 1] == '&';
	struct slot *slot;
	struct line line;
	char copy[640];

	if (background)
		who[length - 1] = 0;
	slot = slot_named(who);
	if (!slot)
		give_up(line_number, "there is no such process: ", who);
	collect(NULL);
	await_reply(slot);
	if (!slot->pid)
		return; /* it was killed: the rest of its lines is passed over */
	if (strlen(text) >= sizeof copy)
		give_up(line_number, "the line is too long", "");
	memcpy(copy, text, strlen(text) + 1);
	split(copy, &line);
	if (same(line.word[0], "fork")) {
		do_fork_of(slot, text, &line);
		return;
	}
	send_line(slot, text);
	if (same(line.word[0], "exit"))
		await_death(slot);
	else if (!background)
		await_reply(slot);
}

static void set_file(const char *path, const char *value)
{
	long result = write_file(path, value);

	if (is_error(result))
		give_up(line_number, "cannot be set: ", path);
}

static void do_ksm(const struct line *line)
{
	char path[128];

	for (int i = 1; i + 1 < line->count; i += 2) {
		join(path, "/sys/kernel/mm/ksm/", line->word[i], "");
		set_file(path, line->word[i + 1]);
	}
}

static void do_load(const char *path)
{
	long fd = sys_open(path, O_RDONLY, 0);
	long result = sys3(SYS_finit_module, fd, "", 0);

	if (is_error(result))
		give_up(line_number, "cannot be loaded: ", path);
	sys1(SYS_close, fd);
	sys1(SYS_unlink, path);
}

static void await_file(const char *path)
{
	for (int tries = 0; sys2(SYS_access, path, F_OK) && tries < 500; tries++)
		sleep_ms(10);
}

static int nr_words_needed(const char *verb)
{
	static const struct {
		const char *verb;
		int words;
	} NEEDS[] = {
		{ "spawn", 1 }, { "snapshot", 1 }, { "watchfile", 1 }, { "drop_caches", 1 }, { "sleep", 1 }, { "set", 2 },
		{ "kill", 1 }, { "ksm", 2 }, { "ksm_scan", 1 }, { "ksm_step", 2 }, { "ksm_wait", 1 }, { "wait", 1 },
		{ "load", 1 }, { "mount", 3 }, { "swapon", 1 }, { "sync", 0 }, { "compact", 0 }, { "begin", 0 },
		{ "cpus", 1 },
	};

	for (unsigned i = 0; i < COUNT(NEEDS); i++)
		if (same(NEEDS[i].verb, verb))
			return NEEDS[i].words;
	give_up(line_number, "there is no such command: ", verb);
	return 0;
}

static void for_controller(char *text)
{
	struct line line;
	const char *verb;
	struct slot *slot;

	split(text, &line);
	verb = line.word[0];
	if (line.count - 1 < nr_words_needed(verb))
		give_up(line_number, "needs more words: ", verb);
	if (same(verb, "spawn")) {
		do_spawn(&line);
	} else if (same(verb, "snapshot")) {
		await_quiet();
		snapshot(line.word[1]);
	} else if (same(verb, "watchfile")) {
		for (int i = 1; i < line.count && nr_watched < MAX_WATCHED; i++)
			join(watched[nr_watched++], line.word[i], "", "");
	} else if (same(verb, "sync")) {
		sys0(SYS_sync);
	} else if (same(verb, "drop_caches")) {
		set_file("/proc/sys/vm/drop_caches", line.word[1]);
	} else if (same(verb, "compact")) {
		set_file("/proc/sys/vm/compact_memory", "1");
	} else if (same(verb, "sleep") || same(verb, "ksm_wait")) {
		sleep_ms(number(line.word[1]));
	} else if (same(verb, "set")) {
		set_file(line.word[1], line.word[2]);
	} else if (same(verb, "ksm")) {
		do_ksm(&line);
	} else if (same(verb, "ksm_scan")) {
		ksm_batches(number(line.word[1]), ALL_PAGES);
	} else if (same(verb, "ksm_step")) {
		ksm_batches(number(line.word[1]), line.word[2]);
	} else if (same(verb, "load")) {
		do_load(line.word[1]);
	} else if (same(verb, "mount")) {
		await_file(line.word[1]);
		sys2(SYS_mkdir, line.word[2], 0755);
		if (is_error(sys6(SYS_mount, (long)line.word[1], (long)line.word[2], (long)line.word[3], MS_NOATIME, 0, 0)))
			give_up(line_number, "cannot be mounted: ", line.word[1]);
	} else if (same(verb, "swapon")) {
		await_file(line.word[1]);
		if (is_error(sys2(SYS_swapon, line.word[1], 0)))
			give_up(line_number, "cannot be swapped to: ", line.word[1]);
	} else if (same(verb, "cpus")) {
		nr_cpus = (int)number(line.word[1]);
	} else if (same(verb, "begin")) {
		put_machine();
		snapshot("boot");
	} else {
		slot = slot_named(line.word[1]);
		if (!slot)
			give_up(line_number, "there is no such process: ", line.word[1]);
		if (same(verb, "wait")) {
			await_reply(slot);
		} else if (slot->pid) { /* kill */
			sys2(SYS_kill, slot->pid, 9);
			await_death(slot);
		}
	}
}

static void *memory_for(size_t length)
{
	return (void *)sys_mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void prepare(void)
{
	static const struct {
		const char *what, *where;
	} MOUNTS[] = {
		{ "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" }, { "debugfs", "/sys/kernel/debug" },
	};
	static char zeroes[PAGE];
	long fd, got, used = 0;

	for (unsigned i = 0; i < COUNT(MOUNTS); i++) {
		sys2(SYS_mkdir, MOUNTS[i].where, 0755);
		sys6(SYS_mount, (long)MOUNTS[i].what, (long)MOUNTS[i].where, (long)MOUNTS[i].what, 0, 0, 0);
	}
	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "never"); /* before the driver's memory is touched */
	/* Not in the program's own memory, which every process has. */
	output = memory_for(OUTPUT_BYTES);
	script = memory_for(SCRIPT_BYTES);
	pagemap = memory_for(PAGEMAP_ENTRIES * sizeof *pagemap);
	page_flags = memory_for(RUN_PAGES * sizeof *page_flags);
	resident = memory_for(RESIDENT_BYTES);
	open_output();
	fd = sys_open("/slots", O_RDWR | O_CREAT, 0600);
	for (int i = 0; i < NR_SLOTS; i++)
		sys3(SYS_write, fd, zeroes, PAGE);
	sys1(SYS_close, fd);
	slots_of_all = map_slots();
	for (int i = 0; i < NR_SLOTS; i++) {
		struct slot *slot = &slots_of_all[i].slot;
		int ends[2];

		sys2(SYS_pipe2, ends, 0);
		slot->command[0] = ends[0];
		slot->command[1] = ends[1];
		sys2(SYS_pipe2, ends, 0);
		slot->reply[0] = ends[0];
		slot->reply[1] = ends[1];
	}
	fd = sys_open("/script", O_RDONLY, 0);
	while ((got = sys3(SYS_read, fd, script + used, SCRIPT_BYTES - 1 - used)) > 0)
		used += got;
	sys1(SYS_close, fd);
	sys1(SYS_unlink, "/script");
	kpageflags_fd = sys_open("/proc/kpageflags", O_RDONLY, 0);
	find_ksmd();
	sys1(SYS_mlockall, MCL_CURRENT);
	/* The lock leaves the stack's next pages alone: touch what snapshots and commands may need. */
	{
		volatile char deeper[64 << 10];

		for (unsigned i = 0; i < sizeof deeper; i += PAGE)
			deeper[i] = 1;
	}
}

static void controller_main(void)
{
	char *next;

	prepare();
	for (char *line = script; *line; line = next) {
		char *who, *text;

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		else
			next = line + strlen(line);
		line_number = number(line);
		who = strchr(line, ' ');
		text = who ? strchr(who + 1, ' ') : NULL;
		if (!text)
			continue;
		*who++ = 0;
		*text++ = 0;
		if (same(who, "-"))
			for_controller(text);
		else
			for_process(who, text);
	}
	put("= end\n");
	power_off();
}
