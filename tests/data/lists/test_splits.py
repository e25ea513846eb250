"""The official lists of UCF101, HMDB51 and Kinetics-400 with complete, partial and renamed copies; invalid lists."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

import pytest

from v3s.data.lists.folder import video_files
from v3s.data.lists.hmdb51 import plain_name
from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import class_order
from v3s.data.lists.splits import list_videos


def make_files(root: Path, paths: Iterable[str]) -> Path:
    """Create empty files; listing only uses names."""
    paths = list(paths)
    for folder in {(root / path).parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (root / path).touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def listed(list_file: Path) -> list[str]:
    """Read the first word of each line of a list, without any code of the project."""
    return [line.split()[0] for line in list_file.read_text().splitlines() if line.strip()]


# --- UCF101 -----------------------------------------------------------------------------------------------------------

UCF101_SIZES = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


@pytest.fixture(scope="module")
def ucf101(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A complete UCF101 of empty files, and its official lists."""
    lists = shared / "data/splits/ucfTrainTestlist"
    paths = listed(lists / "trainlist01.txt") + listed(lists / "testlist01.txt")
    return make_files(tmp_path_factory.mktemp("UCF-101"), paths), lists


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_splits_have_the_official_sizes(ucf101: tuple[Path, Path], split: int) -> None:
    data, lists = ucf101
    train = list_videos(data, splits=lists, split=split)
    test = list_videos(data, splits=lists, split=split, subset="test")
    assert (len(train), len(test)) == UCF101_SIZES[split]
    assert list(test.paths) == listed(lists / f"testlist{split:02}.txt")
    assert not set(train.paths) & set(test.paths)
    assert len(train.classes) == 101
    assert train.classes[36] == "HandstandPushups"
    assert train.classes[0] == "ApplyEyeMakeup"
    assert train.classes == test.classes
    assert all(path.startswith(f"{label}/") for path, label in zip(train.paths, train.labels, strict=True))
    assert train.source == f"UCF101 split {split} train: {len(train):,} videos in 101 classes"
    assert len(list_videos(data, splits=lists, split=split, subset="all")) == 13320


def test_ucf101_folder_named_as_its_files(shared: Path, tmp_path: Path) -> None:
    lists = shared / "data/splits/ucfTrainTestlist"
    official = [path for path in listed(lists / "testlist01.txt") if path.startswith("HandstandPushups/")]
    make_files(tmp_path, [path.replace("HandstandPushups/", "HandStandPushups/") for path in official])
    videos = list_videos(tmp_path, splits=lists, subset="test", allow_missing=True)
    assert len(videos) == len(official) == 28
    assert videos.paths[0] == "HandStandPushups/v_HandStandPushups_g01_c01.avi"
    assert videos.classes == ("HandstandPushups",)


def test_ucf101_lists_with_an_incomplete_copy_stop_with_the_count(shared: Path) -> None:
    data, lists = shared / "data/UCF-101", shared / "data/splits/ucfTrainTestlist"
    message = (
        "7,916 of 9,537 videos of UCF101 split 1 train are missing under "
        f"{data}, first: ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi; give --allow-missing to use the 1,621 that exist"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        list_videos(data, splits=lists)
    videos = list_videos(data, splits=lists, allow_missing=True)
    assert (len(videos), videos.num_missing) == (1621, 7916)
    assert videos.source.endswith("1,621 videos in 21 classes; 7,916 more listed videos missing")


def test_ucf101_cut_down_lists(shared: Path) -> None:
    data, lists = shared / "data/UCF-101", shared / "data/splits/ucf101-21"
    train, test = list_videos(data, splits=lists), list_videos(data, splits=lists, subset="test")
    assert (len(train), len(test)) == (1621, 620)
    assert train.source == "UCF101 split 1 train: 1,621 videos in 21 classes"
    assert train.classes == test.classes
    # The official order is not the alphabetical one: JumpingJack is 47, JumpRope 48.
    assert train.classes.index("JumpingJack") + 1 == train.classes.index("JumpRope")
    assert train.classes != tuple(sorted(train.classes))
    assert len(list_videos(data, splits=lists, subset="all")) == 2241


def test_ucf101_wrong_folder_reports_what_was_looked_for(shared: Path, tmp_path: Path) -> None:
    make_files(tmp_path, ["UCF-101/Archery/v_Archery_g01_c01.avi"])
    looked_for = (
        r"no video of .* \(3,783 listed\) .* looked for ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi, "
        "but the first video there is UCF-101/Archery/"
    )
    with pytest.raises(ValueError, match=looked_for):
        list_videos(tmp_path, splits=shared / "data/splits/ucfTrainTestlist", subset="test", allow_missing=True)


@pytest.mark.parametrize(
    ("index", "train", "message"),
    [
        (
            "1 Bow\r\n2 Sit\r\n",
            "Bow/1.avi 1\nSit/2.avi 1\n",
            r"line 2: 'Sit/2.avi 1' has the label 1, which is Bow; Sit is",
        ),
        ("1 Bow\r\n2 Sit\r\n", "Bow/1.avi 3\n", "line 1: .* the label 3, which is not a class; Bow is 1"),
        ("1 Bow\r\n", "Run/1.avi 1\n", "line 1: .* does not start with a numbered class"),
        ("1 Bow\r\n1 Sit\r\n", "Bow/1.avi 1\n", "classInd.txt, line 2: .* gives Sit the number of Bow"),
        ("Bow\r\n", "Bow/1.avi 1\n", "classInd.txt, line 1: .* has no class number"),
        (None, "Bow/1.avi 1\nSit/2.avi 1\n", "trainlist01.txt, line 2: .* gives Sit the number of Bow"),
        (None, "Bow/1.avi\n", "trainlist01.txt, line 1: .* has no class number"),
    ],
)
def test_ucf101_lists_that_contradict_themselves(tmp_path: Path, index: str | None, train: str, message: str) -> None:
    data = make_files(tmp_path / "data", ["Bow/1.avi", "Sit/2.avi", "Run/1.avi"])
    lists = write(tmp_path / "lists/trainlist01.txt", train).parent
    if index:
        write(lists / "classInd.txt", index)
    with pytest.raises(ValueError, match=message):
        list_videos(data, splits=lists)


def test_ucf101_has_three_splits(shared: Path) -> None:
    with pytest.raises(ValueError, match=r"trainlist04\.txt does not exist.*contains testlist01\.txt, testlist02\.txt"):
        list_videos(shared / "data/UCF-101", splits=shared / "data/splits/ucf101-21", split=4)


# --- HMDB51 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hmdb51_names(shared: Path) -> list[str]:
    lists = sorted((shared / "data/splits/testTrainMulti_7030_splits").glob("*_test_split1.txt"))
    return [f"{file.name.removesuffix('_test_split1.txt')}/{name}" for file in lists for name in listed(file)]


@pytest.fixture(scope="module")
def hmdb51(hmdb51_names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("hmdb51"), hmdb51_names)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_splits_have_70_and_30_videos_a_class(shared: Path, hmdb51: Path, split: int) -> None:
    lists = shared / "data/splits/testTrainMulti_7030_splits"
    train = list_videos(hmdb51, splits=lists, split=split)
    test = list_videos(hmdb51, splits=lists, split=split, subset="test")
    assert set(Counter(train.labels).values()) == {70}
    assert set(Counter(test.labels).values()) == {30}
    assert len(train.classes) == 51
    assert train.classes == tuple(sorted(train.classes)) == test.classes
    assert not set(train.paths) & set(test.paths)
    assert train.source == f"HMDB51 split {split} train: 3,570 videos in 51 classes"
    assert len(list_videos(hmdb51, splits=lists, split=split, subset="all")) == 5100


def test_hmdb51_names_contain_special_characters(shared: Path, hmdb51: Path) -> None:
    lists = shared / "data/splits/testTrainMulti_7030_splits"
    paths = list_videos(hmdb51, splits=lists, subset="all").paths
    assert all(any(character in path for path in paths) for character in "#&()[]!;+")


def test_hmdb51_copy_without_special_characters(shared: Path, hmdb51_names: list[str], tmp_path: Path) -> None:
    lists = shared / "data/splits/testTrainMulti_7030_splits"
    make_files(tmp_path, [plain_name(name) for name in hmdb51_names])
    # "Smile!_smile_..." and "Smile_smile_..." become one name: the file is the second video; the first is missing.
    assert len({plain_name(name) for name in hmdb51_names}) == len(hmdb51_names) - 1 == 6765
    sizes = [len(list_videos(tmp_path, splits=lists, split=n, subset="all", allow_missing=True)) for n in (1, 2, 3)]
    assert min(sizes) >= 5099
    assert "smile/Smile_smile_h_cm_np1_fr_goo_0.avi" in video_files(tmp_path)


def test_one_file_never_matches_two_videos(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["clap/boom.avi"])
    lists = write(tmp_path / "lists/clap_test_split1.txt", "boom!.avi 1 \nboom#.avi 1 \n").parent
    with pytest.raises(ValueError, match=r"boom\.avi matches two videos of HMDB51 split 1 train: clap/boom!\.avi and"):
        list_videos(data, splits=lists)


def test_hmdb51_bad_lists(shared: Path, hmdb51: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HMDB51 split 4 is not available"):
        list_videos(hmdb51, splits=shared / "data/splits/testTrainMulti_7030_splits", split=4)
    lists = write(tmp_path / "lists/clap_test_split1.txt", "boom.avi 1 \nboom2.avi 3 \n").parent
    with pytest.raises(ValueError, match=r"line 2: 'boom2\.avi 3' does not end in 0, 1 or 2"):
        list_videos(hmdb51, splits=lists)


# --- Kinetics-400 and your own lists ----------------------------------------------------------------------------------

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_kinetics_flat_folder_with_the_official_list(shared: Path, tmp_path: Path) -> None:
    splits = shared / "data/splits/kinetics400/val.csv"
    rows = [line.split(",") for line in splits.read_text().splitlines()[1:]]
    make_files(tmp_path, [f"{row[1]}_{int(row[2]):06}_{int(row[3]):06}.mp4" for row in rows])
    by_file = list_videos(tmp_path, splits=splits, subset="test")
    assert (len(by_file), len(by_file.classes)) == (19906, 400)
    assert by_file.paths[0] == "0wR5jVB-WPk_000417_000427.mp4"
    assert list(by_file.labels) == [row[0].strip('"') for row in rows]
    assert by_file.source == "Kinetics-400 test: 19,906 videos in 400 classes"
    by_folder = list_videos(tmp_path, splits=splits.parent, subset="test")
    assert by_folder.paths == by_file.paths
    with pytest.raises(ValueError, match="lists no videos with subset 'train'"):
        list_videos(tmp_path, splits=splits)
    assert list_videos(tmp_path, splits=splits, subset="all").paths == by_file.paths


def test_kinetics_class_folders_and_other_names(tmp_path: Path) -> None:
    rows = '"hug, not kiss",-a_b,3,13,train,0\nplay violin,AbC,0,10,train,0\nplay violin,abc,5,15,train,1\n'
    data = make_files(
        tmp_path / "data", ["hug/-a_b_000003_000013.mkv", "play_violin/AbC.webm", "play violin/abc_000005_000015.mp4"]
    )
    videos = list_videos(data, splits=write(tmp_path / "lists/train.csv", HEADER + rows).parent)
    assert videos.paths == ("hug/-a_b_000003_000013.mkv", "play_violin/AbC.webm", "play violin/abc_000005_000015.mp4")
    assert videos.labels == ("hug, not kiss", "play violin", "play violin")
    assert videos.classes == ("hug, not kiss", "play violin")


def test_kinetics_test_list_without_labels_is_replaced_by_the_validation_list(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["t_000000_000010.mp4", "v_000000_000010.mp4"])
    lists = write(tmp_path / "lists/test.csv", "youtube_id,time_start,time_end,split\nt,0,10,test\n").parent
    with pytest.raises(ValueError, match=r"contains no usable test list, which needs labels: looked for test\.csv"):
        list_videos(data, splits=lists, subset="test")
    write(lists / "val.csv", f"{HEADER}bow,v,0,10,val,0\n")
    assert list_videos(data, splits=lists, subset="test").paths == ("v_000000_000010.mp4",)
    write(lists / "test.csv", f"{HEADER}bow,t,0,10,test,0\n")
    assert list_videos(data, splits=lists, subset="test").paths == ("t_000000_000010.mp4",)


def test_one_list_of_kinetics_without_the_column_split_has_no_test_videos(tmp_path: Path) -> None:
    """They would be the training videos."""
    data = make_files(tmp_path / "data", ["v_000000_000010.mp4"])
    file = write(tmp_path / "all.csv", "label,youtube_id,time_start,time_end\nbow,v,0,10\n")
    assert list_videos(data, splits=file).paths == ("v_000000_000010.mp4",)
    with pytest.raises(ValueError, match=r"a single list without a test subset \(no column split\); give a folder"):
        list_videos(data, splits=file, subset="test")


def test_kinetics_bad_rows_and_missing_files(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["v_000000_000010.mp4"])
    lists = write(tmp_path / "lists/train.csv", f"{HEADER}bow,v,0,10,train,0\nbow,w,0,,train,0\n").parent
    with pytest.raises(ValueError, match=r"train\.csv, line 3: w has no time_start and time_end"):
        list_videos(data, splits=lists)
    write(lists / "train.csv", f"{HEADER}bow,v,0,10,train,0\nbow,w,0,10,train,0\n")
    with pytest.raises(ValueError, match=r"1 of 2 videos of Kinetics-400 train is missing .*first: w_000000_000010"):
        list_videos(data, splits=lists)
    with pytest.raises(ValueError, match=r"split 3 was given, but .* has only one split"):
        list_videos(data, splits=lists, split=3)


@pytest.mark.parametrize(
    "text",
    [
        '"label","youtube_id","time_start","time_end","split"\n"bow","v","0","10","train"\n"hug","w","0","10","val"\n',
        "Label, youtube_id, time_start, time_end, Split\nbow, v, 0, 10, Train\nhug, w, 0, 10, Val\n",
        "\ufefflabel,youtube_id,time_start,time_end,split\r\nbow,v,0,10,train\r\nhug,w,0,10,validate\r\n",
    ],
)
def test_kinetics_from_a_spreadsheet(text: str, tmp_path: Path) -> None:
    """Another form of a column's name once hid the column: then no row had a label, or all were of one subset."""
    data = make_files(tmp_path / "data", ["v_000000_000010.mp4", "w_000000_000010.mp4"])
    file = write(tmp_path / "all.csv", text)
    train, test = (list_videos(data, splits=file, subset=subset) for subset in ("train", "test"))
    assert (train.paths, train.labels) == (("v_000000_000010.mp4",), ("bow",))
    assert (test.paths, test.labels) == (("w_000000_000010.mp4",), ("hug",))


def test_kinetics_with_an_unknown_subset(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["v_000000_000010.mp4"])
    file = write(tmp_path / "all.csv", f"{HEADER}bow,v,0,10,train,0\nbow,v,0,10,trian,0\n")
    with pytest.raises(ValueError, match=r"all\.csv, line 3: split is 'trian'; it must be one of train, test, val"):
        list_videos(data, splits=file)


@pytest.mark.parametrize(
    "header",
    ["path;label", "path,label,notes", "label,path", '"Path";"Label"', "label;youtube_id;split"],
)
def test_a_header_that_is_not_known_is_no_missing_video(header: str, tmp_path: Path) -> None:
    data = make_files(tmp_path, ["a.mp4"])
    file = write(data / "list.csv", f"{header}\na.mp4,x\n")
    with pytest.raises(ValueError, match=r"list\.csv: the first line, .* is not a header that a list may have"):
        list_videos(file, allow_missing=True)


def test_forms_of_a_list(tmp_path: Path) -> None:
    data = make_files(tmp_path, ["a.mp4", "path"])
    file = write(data / "list.csv", "\n \npath,label\na.mp4\tgo fast\n")
    assert list_videos(file).labels == ("go fast",)
    assert list_videos(write(file, "a.mp4,path\n")).labels == ("path",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_list_as_a_spreadsheet_saves_it(encoding: str, tmp_path: Path) -> None:
    """Its "Unicode text" is UTF-16, with tabs."""
    data = make_files(tmp_path, ["b.mp4", "ä.mp4"])
    for mark in "\t,":
        file = data / "list.txt"
        file.write_bytes("Path,Label\r\nä.mp4,Übung\r\nb.mp4,rest\r\n".replace(",", mark).encode(encoding))
        videos = list_videos(file)
        assert (videos.paths, videos.labels) == (("ä.mp4", "b.mp4"), ("Übung", "rest"))
    make_files(tmp_path, ["a,b.mp4"])
    file.write_bytes('"a,b.mp4"\trun\r\nb.mp4\t"run, fast"\r\n'.encode(encoding))  # cells with commas have quotes
    videos = list_videos(file)
    assert (videos.paths, videos.labels) == (("a,b.mp4", "b.mp4"), ("run", "run, fast"))
    file.write_bytes("b.mp4\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"list\.txt: is damaged UTF-16 text \(truncated data\); save it"):
        list_videos(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b.mp4,rest\nä.mp4,rest\n", r"first: \udce4\.mp4; .*; the list is not UTF-8 text: save it as such"),
        ("b.mp4,Übung\n", r"list\.csv gives b\.mp4 the label \udcdcbung; the list is not UTF-8 text: save it as such"),
    ],
)
def test_a_list_in_another_encoding_is_named_as_such(text: str, message: str, tmp_path: Path) -> None:
    """A path in it seemed to be missing, a label was taken as it was."""
    data = make_files(tmp_path, ["b.mp4", "ä.mp4"])
    (data / "list.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(ValueError, match=message):
        list_videos(data / "list.csv")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (r"a\b.mp4,x", "; write / in the paths of the list, not \\"),
        ("b.mp4;x", "; in a list a comma separates a label from its path, not a semicolon"),
        (normalize("NFD", "ä.mp4"), "; a file is there whose name has the same letters in another form, Unicode's NFC"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_where_it_can_be_seen(line: str, hint: str, tmp_path: Path) -> None:
    data = make_files(tmp_path, ["b.mp4", "a/b.mp4", normalize("NFC", "ä.mp4")])  # on macOS both names lead to it
    if os.path.lexists(data / line):
        pytest.skip("this disk knows both forms")
    for others in ("", "b.mp4\n"):
        with pytest.raises(ValueError, match=re.escape(hint)):
            list_videos(write(data / "list.csv", f"{others}{line}\n"))


def test_classes_that_are_one_number_have_one_order() -> None:
    names = [f"{'0' * zeros}{number}" for number in range(3) for zeros in range(5)]
    for start in range(len(names)):
        assert class_order([*names[start:], *names[:start]]) == tuple(sorted(names, key=lambda name: (int(name), name)))


def test_your_own_lists(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["a/1.mp4", "b/2.mp4", "b/3.mp4"])
    lists = write(tmp_path / "lists/train.csv", "a/1.mp4 0\nb/2.mp4 1\n").parent
    write(lists / "val.csv", "b/3.mp4 1\n")
    assert list_videos(data, splits=lists).labels == ("0", "1")
    assert list_videos(data, splits=lists, subset="test").paths == ("b/3.mp4",)
    both = list_videos(data, splits=lists, subset="all")
    assert both.source == "list train.csv and list val.csv all: 3 videos in 2 classes"
    assert list_videos(data, splits=lists / "train.csv").paths == ("a/1.mp4", "b/2.mp4")
    with pytest.raises(ValueError, match="a single list without a test subset"):
        list_videos(data, splits=lists / "train.csv", subset="test")
    write(lists / "val.csv", f"{HEADER}bow,v,0,10,val,0\n")
    with pytest.raises(ValueError, match="give two lists of the same kind"):
        list_videos(data, splits=lists, subset="all")


@pytest.mark.parametrize(("header", "rest"), [("", ""), ("path,start,end\n", ",0,1")])
def test_a_quote_that_is_not_closed_is_named(tmp_path: Path, header: str, rest: str) -> None:
    names = "".join(f"video{number:05}.mp4{rest}\n" for number in range(30_000))
    file = write(tmp_path / "list.txt", f'{header}first.mp4{rest}\n"a.mp4{rest}\n{names}')
    with pytest.raises(ValueError, match=rf'list\.txt: the quote \("\) in line {3 if header else 2} is not closed'):
        list_videos(file)


def test_a_second_quote_in_the_line_does_not_hide_one_that_is_not_closed(tmp_path: Path) -> None:
    rest = "".join(f"video{number:05}.mp4,0,1\n" for number in range(30_000))
    file = write(tmp_path / "list.txt", f'path,start,end\na.mp4,0,1\n5" disk.mp4,"0,1\n{rest}')
    with pytest.raises(ValueError, match=r'list\.txt: the quote \("\) in line 3 is not closed'):
        list_videos(file)


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (['"b.mp4', "c.mp4", "d.mp4"], 2),
        (["b.mp4,a", '"c.mp4",b', '"d.mp4,a'], 4),
        (["path,start,end,label", 'b.mp4,0,1,"a', "c.mp4,0,1,b", "d.mp4,0,1,a"], 3),
        (["path,start,end,label", 'b.mp4,0,1,"a', 'c.mp4,0,1,"b"', "d.mp4,0,1,a"], 3),
        (["path,start,end,label", 'b.mp4,0,1,"two\nlines"', 'c.mp4,0,1,"b', 'd.mp4,0,1,"a"'], 5),
    ],
)
def test_a_quote_that_is_not_closed_takes_no_entries(tmp_path: Path, lines: list[str], number: int) -> None:
    first = ["a.mp4"] if not lines[0].startswith("path") else []
    lines = [*first, *lines] if first else [lines[0], "a.mp4,0,1,b", *lines[1:]]
    file = write(make_files(tmp_path, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]) / "list.csv", "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf'list\.csv: the quote \("\) in line {number} is not closed'):
        list_videos(file)


def test_splits_that_are_not_lists(shared: Path, tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", ["a/1.mp4"])
    with pytest.raises(ValueError, match=r"aslan contains no known lists: looked for trainlist01\.txt"):
        list_videos(data, splits=shared / "data/splits/aslan")
    with pytest.raises(ValueError, match="absent does not exist"):
        list_videos(data, splits=tmp_path / "absent")


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c", "\xa0"])
def test_only_blanks_separate_words_and_only_line_ends_lines(tmp_path: Path, character: str) -> None:
    """What Python counts as white space besides may be part of a name: it neither makes a label nor another line."""
    name, file = f"a.mp4{character}b.mp4", tmp_path / "list.txt"
    for text in (f"{name}\n", f"{name} x\n", f"{name}\tx\r\n", f"{name},x\r", f"path,start,end,label\n{name},0,1,x\n"):
        file.write_text(f"{text}c{character} x\n" if "start" not in text else text, encoding="utf-8", newline="")
        first, *rest = read_list(file, tmp_path).entries
        assert (first.names, first.label) == ((name,), "x" if "x" in text else None)
        assert [(entry.names, entry.label) for entry in rest] == [((f"c{character}",), "x")] * ("start" not in text)
