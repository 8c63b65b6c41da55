/* What the controller notes: text in locked memory, written to the second serial line at the end.
 *
 * Writing takes pages of the tty's, so it happens while nothing is recorded; only if the memory is full does it
 * happen between two snapshots.
 */
#define OUTPUT_BYTES (5UL << 20)
#define OUTPUT_RESERVE (1UL << 20) /* a snapshot fits into it */

static char *output; /* [OUTPUT_BYTES] */
static size_t output_used;
static long output_fd = -1;

static void put_bytes(const char *from, size_t length)
{
	if (length > OUTPUT_BYTES - output_used)
		length = OUTPUT_BYTES - output_used;
	memcpy(output + output_used, from, length);
	output_used += length;
}

static void put(const char *text)
{
	put_bytes(text, strlen(text));
}

static void put_number(long value)
{
	char digits[24];
	int at = sizeof digits;
	unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;

	do {
		digits[--at] = '0' + rest % 10;
		rest /= 10;
	} while (rest);
	if (value < 0)
		digits[--at] = '-';
	put_bytes(digits + at, sizeof digits - at);
}

/* Append a file's text; return how many bytes that was, or an error. */
static long put_file(const char *path)
{
	long fd = sys_open(path, O_RDONLY, 0);
	long got, all = 0;

	if (is_error(fd))
		return fd;
	while (output_used + PAGE <= OUTPUT_BYTES) {
		/* A page at a time: /proc/sys has a buffer made of the size that is asked for. */
		got = sys3(SYS_read, fd, output + output_used, PAGE);
		if (got <= 0)
			break;
		output_used += got;
		all += got;
	}
	sys1(SYS_close, fd);
	if (all && output[output_used - 1] != '\n')
		put("\n");
	return all;
}

static void open_output(void)
{
	struct termios settings;

	output_fd = sys_open("/dev/ttyS1", O_WRONLY | O_NOCTTY, 0);
	memset(&settings, 0, sizeof settings);
	settings.c_cflag = CS8 | CREAD | CLOCAL | B115200;
	sys3(SYS_ioctl, output_fd, TCSETS, &settings);
}

static void flush_output(void)
{
	size_t at = 0;

	while (at < output_used) {
		long done = sys3(SYS_write, output_fd, output + at, output_used - at);

		if (done <= 0)
			break;
		at += done;
	}
	output_used = 0;
}

static void power_off(void)
{
	flush_output();
	sys3(SYS_ioctl, output_fd, TCSBRK, 1); /* wait until the line has sent it */
	sys0(SYS_sync);
	for (;;) {
		sys4(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
		sleep_ms(1000);
	}
}

/* Say what is wrong and end. */
static void give_up(long line_number, const char *what, const char *detail)
{
	put("\n= error ");
	put_number(line_number);
	put("\n");
	put(what);
	put(detail);
	put("\n= end\n");
	power_off();
}
