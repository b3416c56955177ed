/* What the files of this folder share. */
#ifndef ESPL_IO_CHAT_PARTS_H
#define ESPL_IO_CHAT_PARTS_H

#include "io/chat/chat.h"

struct espl_chat {
    espl_jinja *jinja;
    json_t *specials; /* object: bos_token, eos_token, ... */
    char *date, *prompt_field, *response_field;
    espl_chat_loss loss;
};

#endif
