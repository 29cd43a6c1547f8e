"""`decant init` as a user runs it: what it writes is what `decant build` takes."""

import json

from tests.helpers import write_image


def test_a_recipe_is_written_and_its_command_builds_it(decant, tmp_path):
    for number in range(3):
        write_image(tmp_path / "my größe" / "cat" / f"{number}.png", number, 40, 48)

    shown = decant("init", "my größe", cwd=tmp_path).stdout

    command = shown.rstrip().splitlines()[-1].split("decant ")[1]
    assert command == "build 'my größe' 'my größe.cache' --recipe recipe.yaml"
    assert "size       40x48: the size of every image" in shown
    built = decant(
        "build", "my größe", "my größe.cache", "--recipe", "recipe.yaml", "--device", "cpu", "--json", cwd=tmp_path
    )
    assert json.loads(built.stdout)["variants"] == {"train": 4}


def test_it_overwrites_only_if_forced_and_refuses_other_nonsense(decant, tmp_path):
    write_image(tmp_path / "photos" / "cat" / "1.png", 1)
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 3")

    refused = decant("init", tmp_path / "photos", "-o", mine, code=2)
    assert "exists; name another file with -o, or overwrite it with --force" in refused.stderr
    assert mine.read_text() == "seed: 3"

    told = json.loads(decant("init", tmp_path / "photos", "-o", mine, "--force", "--size", "16x24", "--json").stdout)
    assert told["recipe"]["size"] == [16, 24]
    assert mine.read_text() == told["text"]

    assert "HEIGHTxWIDTH" in decant("init", tmp_path / "photos", "--size", "16x", code=2).stderr
    assert "sides of 1 to" in decant("init", tmp_path / "photos", "--size", "0", code=2).stderr
    assert "there is no folder" in decant("init", tmp_path / "photos", "-o", tmp_path / "a" / "b", code=7).stderr
