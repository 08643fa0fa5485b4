"""One wav per segment and the two lists, as simuleval reads them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import yaml

from mla_fairseq.cli.segments import main
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.data.segments import cut_segments, list_talks
from mla_fairseq.speech import read_audio


def test_wavs_are_the_segments_and_names_sort_as_the_manifest(corpus: MuSTC, tmp_path: Path) -> None:
    cut_segments(corpus, "dev", tmp_path / "out")
    segments, wavs = corpus.read("dev"), sorted((tmp_path / "out/dev").iterdir())
    assert [wav.name for wav in wavs] == [f"{number:05d}_{segment.id}.wav" for number, segment in enumerate(segments)]
    for wav, segment in zip(wavs, segments, strict=True):
        assert (read_audio(wav) == read_audio(segment.wav, segment.start, segment.length)).all()
        assert soundfile.info(str(wav)).subtype == "PCM_16"


def test_lists_match_and_paths_are_absolute(corpus: MuSTC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources, targets = cut_segments(corpus, "dev", Path("out"), limit=4)
    assert (sources, targets) == (Path("out/dev.wav_list"), Path("out/dev.de"))
    paths = [Path(line) for line in sources.read_text().splitlines()]
    assert all(path.is_absolute() and path.is_file() for path in paths)
    assert targets.read_text(encoding="utf-8").splitlines() == [segment.target for segment in corpus.read("dev")[:4]]


def test_simuleval_loads_them(corpus: MuSTC, tmp_path: Path) -> None:
    loaders = pytest.importorskip("simuleval.data.dataloader.s2t_dataloader")
    loader = loaders.SpeechToTextDataloader.from_files(*cut_segments(corpus, "dev", tmp_path / "out"), tgt_lang=None)
    segments = corpus.read("dev")
    assert len(loader) == len(segments)
    assert loader[3]["target"] == segments[3].target
    assert loader[3]["source"] == read_audio(segments[3].wav, segments[3].start, segments[3].length).tolist()


@pytest.mark.parametrize("write", [cut_segments, list_talks])
def test_a_translation_that_is_empty_is_reported(corpus: MuSTC, tmp_path: Path, write: Callable) -> None:
    texts = corpus.root / "data/dev/txt/dev.de"
    texts.write_text("a\nb\nc\n\nd\n\n")
    with pytest.raises(ValueError, match=r"dev\.de:4 is empty, so it cannot be scored"):
        write(corpus, "dev", tmp_path / "out")
    texts.write_text("\n" * 6)  # a set without references can be translated
    write(corpus, "dev", tmp_path / "out")


def test_a_second_run_changes_nothing(corpus: MuSTC, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_segments(corpus, "dev", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    cut_segments(corpus, "dev", out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_stopped_run_leaves_complete_wavs_and_no_list(
    corpus: MuSTC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_the_third(file, samples, *rest: object, **options: object) -> None:
        if len(list((tmp_path / "out").rglob("*.wav"))) == 2:
            raise KeyboardInterrupt
        write(file, samples, *rest, **options)

    write = soundfile.write
    monkeypatch.setattr("soundfile.write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        cut_segments(corpus, "dev", tmp_path / "out")
    assert [len(read_audio(path)) for path in sorted((tmp_path / "out").rglob("*.*"))] == [12_800, 8_000]


def test_whole_talks_are_listed_with_the_places_of_their_segments(corpus: MuSTC, tmp_path: Path) -> None:
    """The yaml of the corpus is not sorted by time; the scoring tools need that."""
    talks, segments = list_talks(corpus, "dev", tmp_path / "out"), corpus.read("dev")
    wavs = [Path(line) for line in talks.sources.read_text().splitlines()]
    assert wavs == sorted((corpus.root / "data/dev/wav").resolve().iterdir())
    entries = yaml.safe_load(talks.segments.read_text(encoding="utf-8"))
    assert [(one["wav"], one["offset"], one["duration"]) for one in entries] == [
        (segment.wav.name, segment.start / 16000, segment.length / 16000) for segment in segments
    ]
    assert talks.references.read_text(encoding="utf-8").splitlines() == [segment.target for segment in segments]
    whole = [" ".join(one.target for one in segments if one.wav.name == wav.name) for wav in wavs]
    assert talks.targets.read_text(encoding="utf-8").splitlines() == whole


def test_a_limit_of_talks_and_cut_segments_beside_them(corpus: MuSTC, tmp_path: Path) -> None:
    """The names of the two sets of lists differ, so that one does not replace the other."""
    talks = list_talks(corpus, "dev", tmp_path, limit=1)
    assert not {talks.sources, talks.targets, talks.references} & set(cut_segments(corpus, "dev", tmp_path))
    first = {segment.wav for segment in corpus.read("dev")[:1]}
    assert talks.sources.read_text().split() == [str(wav.resolve()) for wav in first]
    expected = [segment.target for segment in corpus.read("dev") if segment.wav in first]
    assert talks.references.read_text(encoding="utf-8").splitlines() == expected


def test_talks_of_equal_names_are_refused(make_pair: Callable[..., Path], tmp_path: Path) -> None:
    """OmniSTEval and simulstream know a recording by its name alone."""
    root = make_pair()
    talk = root / "data/dev/wav/ted_dev_0.wav"
    (root / "data/dev/wav/a").mkdir()
    talk.rename(root / "data/dev/wav/a/ted_dev_1.wav")
    listing = root / "data/dev/txt/dev.yaml"
    listing.write_text(listing.read_text().replace("ted_dev_0.wav", "a/ted_dev_1.wav"))
    with pytest.raises(ValueError, match=r"several talks have the name 'ted_dev_1' \(.*a/ted_dev_1.wav\): rename them"):
        list_talks(MuSTC(root), "dev", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("write", [cut_segments, list_talks])
def test_a_limit_below_one_is_refused(corpus: MuSTC, tmp_path: Path, limit: int, write: Callable) -> None:
    with pytest.raises(ValueError, match=rf"--limit is below 1 \({limit}\)"):
        write(corpus, "dev", tmp_path / "out", limit)
    assert not (tmp_path / "out").exists()


def test_a_missing_split_is_reported_with_the_existing_ones(corpus: MuSTC, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train, dev, tst-COMMON"):
        cut_segments(corpus, "tst-HE", tmp_path / "out")


def test_the_command(corpus: MuSTC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # logging stays pytest's
    arguments = ["--data", str(corpus.root.parent), "--pair", "en-de", "--output", str(tmp_path / "out")]
    main([*arguments, "--limit", "2"])
    assert len((tmp_path / "out/tst-COMMON.wav_list").read_text().splitlines()) == 2
    main([*arguments, "--limit", "1", "--unsegmented"])
    assert len((tmp_path / "out/tst-COMMON.talks.wav_list").read_text().splitlines()) == 1
    assert len((tmp_path / "out/tst-COMMON.segments.de").read_text().splitlines()) == 3
    with pytest.raises(SystemExit, match=r"^error: .*tst-HE is not a split"):
        main([*arguments, "--split", "tst-HE"])
