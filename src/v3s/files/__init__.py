"""Files are written completely or not at all; locks; names as text. Every other package builds on this one."""
