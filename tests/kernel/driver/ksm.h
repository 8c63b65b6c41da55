/* Exact numbers of scans by ksmd.
 *
 * ksmd scans one batch, then sleeps for sleep_millisecs, or until that is changed (mm/ksm.c, ksm_scan_thread).
 * So it is given a sleep of minutes, and each further batch is asked for by another such number; a batch is done
 * when ksmd sleeps again. A batch of more pages than there are ends with the full scan.
 */
#define ALL_PAGES "100000000"

static long ksmd_pid;
static int ksm_sleeps; /* alternates */

/* Return the letter of a process's state (S: it sleeps), or 0 if there is none. */
static int state_of(long pid, char *name)
{
	char path[48], digits[24], text[160] = { 0 };
	int at = sizeof digits - 1;
	char *close;
	long fd;

	digits[at] = 0;
	for (long rest = pid; rest; rest /= 10)
		digits[--at] = '0' + rest % 10;
	join(path, "/proc/", digits + at, "/stat");
	fd = sys_open(path, O_RDONLY, 0);
	if (is_error(fd))
		return 0;
	sys3(SYS_read, fd, text, sizeof text - 1);
	sys1(SYS_close, fd);
	close = strchr(text, ')');
	if (!close)
		return 0;
	*close = 0;
	if (name)
		copy_name(name, strchr(text, '(') + 1);
	return close[2];
}

static void find_ksmd(void)
{
	char name[NAME];

	for (long pid = 2; pid < 500 && !ksmd_pid; pid++)
		if (state_of(pid, name) && same(name, "ksmd"))
			ksmd_pid = pid;
}

static void ksm_batches(uint64_t batches, const char *pages)
{
	write_file("/sys/kernel/mm/ksm/run", "0");
	write_file("/sys/kernel/mm/ksm/pages_to_scan", pages);
	for (uint64_t i = 0; i < batches; i++) {
		write_file("/sys/kernel/mm/ksm/sleep_millisecs", ksm_sleeps++ & 1 ? "500000" : "400000");
		if (i == 0)
			write_file("/sys/kernel/mm/ksm/run", "1");
		do
			sleep_ms(1);
		while (state_of(ksmd_pid, NULL) != 'S');
	}
	write_file("/sys/kernel/mm/ksm/run", "0");
}
