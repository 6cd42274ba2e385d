#include "output/sweep_site.h"

#include "output/callers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Characters of a line of callers. */
#define CALLERS_WIDTH 96

int sweep_site_fill(struct sweep_site *site, struct frame_cursor *cursor, const struct frame *frame,
		    double share)
{
	site->function = strdup(frame->name);
	site->file = strdup(frame->file);
	site->line = frame->line;
	site->share = share;
	if (!site->function || !site->file)
		return -ENOMEM;
	return callers_format(cursor, CALLERS_WIDTH, &site->callers);
}

void sweep_site_deinit(struct sweep_site *site)
{
	free(site->function);
	free(site->file);
	free(site->callers);
}
