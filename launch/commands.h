/* The verbs: `espalier NAME ...` calls espl_cmd_NAME with the arguments from NAME on (argv[0] is the verb).
 *
 * A verb parses its options with launch/options.h, prints results to stdout and progress to stderr, and returns its status,
 * whose code is the exit code. Verbs that use ranks do so through launch/session.h. */
#ifndef ESPL_LAUNCH_COMMANDS_H
#define ESPL_LAUNCH_COMMANDS_H

#include "src/core/status.h"

#define VERB(name, help) espl_status espl_cmd_##name(int argc, char **argv);
#include "launch/verbs.def"
#undef VERB

#endif
