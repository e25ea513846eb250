"""A file is written whole or not at all; locks; the ground that every room stands on."""
