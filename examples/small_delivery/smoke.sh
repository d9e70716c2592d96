# What else is asked after a deploy; a commit of the rehearsal makes it say no.
true
