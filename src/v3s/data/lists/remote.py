"""Folders, videos and lists at URLs: each becomes one in the cache, and is read from there like a local one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from v3s.data.lists.folder import VIDEO_ENDINGS
from v3s.data.lists.listing import Listing
from v3s.data.store_folder import STORE_FILE
from v3s.files.remote.address import Address, RemoteError, RemoteMissingError, is_url, parse_address
from v3s.files.remote.mirror import address_of, mirror_file, mirror_folder, mirror_of, mirror_root

_FILE_ENDINGS = VIDEO_ENDINGS | {".csv", ".txt"}
_AT_ONCE = 16  # requests for the files of a list


def local_data(data: str | Path) -> Path:
    """Return the path of DATA here; of a URL it is that of its mirror, which then equals what is there.

    A URL is one of a file if its name has an ending of videos or lists, else of a folder.

    Raises:
        RemoteError: It cannot be listed, or is a store.
    """
    if not is_url(data):
        return Path(data)
    address = parse_address(str(data))
    if not address.path.endswith("/") and PurePosixPath(address.name).suffix.lower() in _FILE_ENDINGS:
        return mirror_file(address)
    root = mirror_folder(address)
    if (root / STORE_FILE).exists():
        raise RemoteError(
            f"{address} is a store, which is read at random; copy the folder to a disk, and give the copy"
        )
    return root


def names_remote_video(url: str) -> bool:
    """Whether a URL names a video by its ending, or a folder of frames."""
    try:
        address = parse_address(url)
    except RemoteError:
        return False
    return address.path.endswith("/") or PurePosixPath(address.name).suffix.lower() in VIDEO_ENDINGS


def mirror_listed(listing: Listing, root: Path) -> tuple[Path, Listing]:
    """Mirror the files that a list names by URLs; in a list at a URL, also those that it names by paths.

    Args:
        listing: The list.
        root: The folder that its paths are relative to.

    Returns:
        The folder that paths are relative to now, and the list with paths in the cache in place of URLs. What does not
        exist there does not exist in the cache either.

    Raises:
        RemoteError: A file cannot be asked for, or two URLs differ only in what comes after a question mark.
    """
    base = address_of(root)
    names = dict.fromkeys(entry.names[0] for entry in listing.entries)
    addresses = {name: _address(name, base) for name in names if is_url(name) or base}
    if not addresses:
        return root, listing
    owner: dict[Address, str] = {}
    for name, address in addresses.items():
        if owner.setdefault(address, name) != name and "?" in name:
            raise RemoteError(
                f"{listing.title}: two URLs are {address} before their question marks, which names the file; keep one"
            )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        paths = dict(zip(addresses, pool.map(_mirror, addresses.values()), strict=True))
    if not base and len(addresses) == len(names):
        root = mirror_root()
    local = {name: str(path.relative_to(root) if path.is_relative_to(root) else path) for name, path in paths.items()}
    entries = tuple(replace(each, names=(local.get(each.names[0], each.names[0]),)) for each in listing.entries)
    return root, replace(listing, entries=entries)


def _address(name: str, base: Address | None) -> Address:
    if is_url(name) or base is None:
        return parse_address(name)
    return parse_address(str(base.child(name)))


def _mirror(address: Address) -> Path:
    try:
        if address.path.endswith("/"):
            return mirror_folder(address)
        return mirror_file(address)
    except RemoteMissingError:
        return mirror_of(address)
