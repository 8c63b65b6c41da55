/* A process of the workload: forks, its table of commands, and the loop that does them.
 *
 * Before the first command the stack and the program's own pages are touched, so that a later command faults only
 * for what it is there to touch.
 */

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
