/* What the machine is, noted once: kernel, zones, free lists, and the settings that bear on memory. */

static void put_folder(const char *kind, const char *folder)
{
	char entries[4096]; /* struct linux_dirent64: inode, offset, length, type, name */
	long fd = sys_open(folder, O_RDONLY | O_DIRECTORY, 0);
	long got;

	while ((got = sys3(SYS_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < got; at += *(unsigned short *)(entries + at + 16))
			if (entries[at + 18] == 8 /* DT_REG */ && !same(entries + at + 19, "compact_memory") &&
			    !same(entries + at + 19, "drop_caches") && !same(entries + at + 19, "stat_refresh"))
				put_section(kind, "", entries + at + 19, folder);
	sys1(SYS_close, fd);
}

static void put_machine(void)
{
	static const struct {
		const char *folder, *name;
	} FILES[] = {
		{ "/proc", "version" }, { "/proc", "cmdline" }, { "/proc", "zoneinfo" }, { "/proc", "buddyinfo" },
		{ "/proc", "pagetypeinfo" }, { "/proc", "meminfo" },
		{ "/sys/kernel/mm/lru_gen", "enabled" }, { "/sys/kernel/debug", "fault_around_bytes" },
		{ "/sys/block/vda/queue", "read_ahead_kb" },
		{ "/sys/block/vda/queue", "rotational" }, { "/sys/block/vdb/queue", "rotational" },
	};

	settle();
	for (unsigned i = 0; i < COUNT(FILES); i++)
		put_section("machine", FILES[i].folder, FILES[i].name, FILES[i].folder);
	put_section("thp", "", "enabled", "/sys/kernel/mm/transparent_hugepage");
	put_section("thp", "", "defrag", "/sys/kernel/mm/transparent_hugepage");
	put_folder("sysctl", "/proc/sys/vm");
	put_folder("zswap_parameters", "/sys/module/zswap/parameters");
	put_folder("khugepaged", "/sys/kernel/mm/transparent_hugepage/khugepaged");
}

