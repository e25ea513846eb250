"""``python -m v3s`` runs the command ``v3s``; ``torchrun -m v3s pretrain ...`` runs it in several processes."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, from which no command imports
    from v3s.cli import main

    raise SystemExit(main())
