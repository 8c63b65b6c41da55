/* PID 1 of a recorded machine: runs a workload on the real kernel and notes what every counter was.
 *
 *     /init                the controller: prepares the machine, reads /script, writes what it noted to ttyS1
 *     /init process NN     a process of the workload: does the commands in its slot, one at a time
 *     /init nothing        the trivial program that vfork_exec starts
 *
 * The driver's own pages and faults are part of every counter, so they have to be the same each time: no
 * allocator, no buffers that grow, all of the controller's memory locked, all of a process's touched before its
 * first command. Processes keep what they know in a page of a file that the controller maps too (slot.h), so
 * after a fork the only pages of the driver's that are copied are two of the stack.
 */
#define _GNU_SOURCE
#include "driver/sys.h"
#include "driver/text.h"
#include "driver/slot.h"
#include "driver/fill.h"
#include "driver/memory.h"
#include "driver/files.h"
#include "driver/process.h"
#include "driver/output.h"
#include "driver/snapshot.h"
#include "driver/ksm.h"
#include "driver/machine.h"
#include "driver/controller.h"

int main(int argc, char **argv)
{
	if (argc == 3 && same(argv[1], "process"))
		process_main((argv[2][0] - '0') * 10 + argv[2][1] - '0');
	/* The kernel hands words of its command line that it does not know to PID 1. */
	if (sys0(SYS_getpid) == 1)
		controller_main();
	return 0;
}
