"""A file is written whole or not at all; locks; names as text; the ground that every room stands on."""
