"""Repositories: the files of a commit with their licences, and that nothing of theirs is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.core.events import Event, listening
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.licences import licence_of_text
from afresh.services.collect.sources import repository, source_of
from tests.services.collect.sources.finding import STRICT, Memory, find

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

MIT = """MIT License\n\nCopyright (c) 2024 Ann\n\nPermission is hereby granted, free of charge, to any person obtaining
a copy of this software and associated documentation files (the "Software"), to deal ...\n\nThe above copyright notice
and this permission notice shall be included in all copies or substantial portions of the Software.\n"""
APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_COMMITTER_DATE": "2024-05-03T10:00:00+0200",
        "GIT_AUTHOR_DATE": "2024-05-03T10:00:00+0200",
    }
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, content in {
        "LICENSE": MIT,
        "README.md": "# Project\n",
        "Makefile": "all:\n\techo\n",
        "a.py": "print(1)\n",
        "page.html": "<p>x</p>\n",
        "lib/LICENSE.txt": APACHE,
        "lib/b.c": "int x;\n",
        "lib/c.c": "// SPDX-License-Identifier: GPL-2.0-or-later\nint y;\n",
        "node_modules/d.js": "let d\n",
        "package-lock.json": "{}\n",
        ".gitignore": "secret.py\n",
        ".gitattributes": "*.py filter=evil export-ignore\n",
        "data.bin": "\x00\x01",
        "empty.py": "",
        "big.py": "x = 1\n" * 200_000,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "link.py").symlink_to("/etc/passwd")
    git(root, "init")
    git(root, "add", "-A")
    git(root, "commit", "-m", "first")
    (root / "secret.py").write_text("ignored = 1\n")
    (root / "new.py").write_text("not_committed = 1\n")
    return root


def test_the_files_of_a_commit_are_found_with_their_licences(folder: Path) -> None:
    assert source_of(str(folder)).name == "repository"
    found, left = find(folder)
    assert {f.where: f.about.licence for f in found} == {
        "Makefile": "MIT",
        "README.md": "MIT",
        "a.py": "MIT",
        "lib/b.c": "Apache-2.0",
        "lib/c.c": "GPL-2.0-or-later",
        "page.html": "MIT",
    }
    by_name = {f.where: f for f in found}
    assert by_name["lib/b.c"].about.licence_from == "the licence file of the folder lib"
    assert by_name["lib/c.c"].about.licence_from == "SPDX-License-Identifier in the file"
    about = by_name["a.py"].about
    assert (about.group, about.time, about.extra["commit"]) == (
        "project",
        "2024-05-03T08:00:00+00:00",
        git(folder, "rev-parse", "HEAD"),
    )
    assert left["node_modules/d.js"].startswith("not this project's own code")
    assert left["package-lock.json"].startswith("lock file") and left["link.py"] == "symbolic link"
    assert "max_file_mb" in left["big.py"] and left["empty.py"] == "empty file (0 bytes)"
    assert "secret.py" not in left and "new.py" not in left, "what is not committed is not there"


def test_a_repository_is_gathered_as_code_and_text(folder: Path, tmp_path: Path) -> None:
    made = gather([place_of(str(folder))], tmp_path / "set", off=STRICT)
    assert made["items"] == {"code": 5, "text": 1}


def test_a_commit_can_be_named(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    (folder / "a.py").write_text("print(2)\n")
    git(folder, "commit", "-am", "second")
    assert {f.where: f.content for f in find(folder)[0]}["a.py"] == "print(2)\n"
    assert {f.where: f.content for f in find(folder, commit=first)[0]}["a.py"] == "print(1)\n"
    with pytest.raises(UserError, match="git rev-parse failed"):
        find(folder, commit="nowhere")
    with pytest.raises(UserError, match="commit"):
        find(folder, commit="--upload-pack=x")


def test_nothing_that_a_repository_brings_is_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for key in ("core.fsmonitor", "filter.evil.smudge", "filter.evil.clean", "core.sshCommand", "gpg.program"):
        git(folder, "config", key, f"touch {ran}")
    git(folder, "config", "log.showSignature", "true")
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (folder / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (folder / ".git" / "hooks" / hook).chmod(0o755)
    ran.unlink(missing_ok=True)
    assert find(folder)[0]
    assert not ran.exists()


def test_an_address_is_fetched_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = "protocol.file.allow=always", f"url.{folder}.insteadOf=https://example.org/project.git"
    monkeypatch.setattr(repository, "SAFE", " ".join([repository.SAFE, *local]))
    address, memory = "https://example.org/project.git", Memory()
    assert source_of(address).name == "repository"
    found, _ = find(address, memory)
    (facts,) = (facts for _, facts in memory.kept.values())
    assert facts == {"commit": git(folder, "rev-parse", "HEAD")}
    assert {f.about.group for f in found} == {address} and len(found) == 6
    (folder / "a.py").write_text("print(2)\n")
    git(folder, "commit", "-am", "second")
    monkeypatch.setattr(repository, "fetch", None)
    assert find(address, memory)[0] == found


def test_an_address_that_does_not_answer_is_no_source_and_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = "protocol.file.allow=always", f"url.{tmp_path}/none.insteadOf=https://example.org/none.git"
    monkeypatch.setattr(repository, "SAFE", " ".join([repository.SAFE, *local]))
    said: list[Event] = []
    with listening(said.append):
        made = gather([place_of("https://example.org/none.git"), place_of(str(folder))], tmp_path / "set", off=STRICT)
    assert [row["place"] for row in made["sources"]] == [str(folder)] and made["items"] == {"code": 5, "text": 1}
    assert any(e.kind == "warning" and "cannot be fetched" in e.text for e in said)


def test_addresses_are_told_from_pages() -> None:
    for place in ("https://github.com/ann/project", "git+https://example.org/x", "git@example.org:ann/x.git"):
        assert repository.accepts(place)
    for place in ("https://github.com/ann/project/issues", "https://example.org/page", "stories"):
        assert not repository.accepts(place)
    with pytest.raises(UserError, match=r"example\.org/x\.git is given with a password"):
        repository.accepts("https://ann:secret@example.org/x.git")


def test_licences_are_known_by_their_text() -> None:
    assert licence_of_text(MIT) == "MIT"
    assert licence_of_text(MIT.split("The above")[0]) == "MIT-0"
    assert licence_of_text(APACHE) == "Apache-2.0"
    assert licence_of_text("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007") == "GPL-3.0-only"
    bsd = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted provided"
    assert licence_of_text(bsd) == "BSD-2-Clause"
    assert licence_of_text(f"{bsd} ... Neither the name of the copyright holder") == "BSD-3-Clause"
    assert licence_of_text("All rights reserved.") == "unknown"
