/* A process's commands on files. They are read to and written from the lower part of the stack that was touched. */

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

