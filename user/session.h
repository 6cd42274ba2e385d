/*
 * What every recording needs, whatever it records and for whatever reason: signals, the watch, the
 * tracer, an end. These say what is wrong themselves.
 */
#ifndef ALLOCTRACE_SESSION_H
#define ALLOCTRACE_SESSION_H

#include "record.h"
#include "target/watch.h"

/* What room there is to be in the kernel. */
struct session_room {
	uint32_t targets;
	uint32_t mappings;     /* executable ones, of all targets */
	uint32_t more_rows;    /* of unwind tables, for what is loaded later */
	bool unknown_programs; /* targets may come, or execute, that are not known yet: Python, too */
};

/*
 * Blocks the signals that end a recording: a descriptor that is readable when one has come. Each
 * mapped file will be held open, so the limit of files is raised, too.
 */
int session_open_signals(void);
void session_raise_file_limit(void);

/*
 * The recording has ended. The first signal asks for just that; from the second on there is no
 * patience, and what is not written yet is given up.
 */
void session_give_up_on_signal(int signals);

/* An exit code: is this the host's pid namespace, can processes be watched? */
int session_open_watch(struct watch **watch);

/* The tracer, loaded, with the unwind tables of all that the targets map by now. An exit code. */
int session_open_tracer(struct recording *recording, const struct session_room *room);

/* Switches the recording off, reads what has to be read before the probes are taken out, and does that. */
void session_stop(struct recording *recording);

void session_deinit(struct recording *recording);

#endif
