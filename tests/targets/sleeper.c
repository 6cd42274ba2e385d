/* sleeper: says "ready PID" and then does nothing at all, until its stdin ends. */
#include "target.h"

int main(void)
{
	target_ready();
	while (target_wait_line())
		;
	return 0;
}
