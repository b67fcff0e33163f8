"""datatrove's side of benchmarks/corpus.py, in an environment of its own.

    python benchmarks/peers/datatrove_corpus.py INPUT OUT [--words spacy|split] [--bands 14] [--rows 8] [--ngrams 5]

    python -m venv ENV && ENV/bin/pip install "datatrove[processing]" lxml_html_clean orjson spacy

INPUT holds `html-*.jsonl` and `text-*.jsonl`; the documents that stay lie in OUT/kept. What is set in its favour:

- signatures are taken in the pass that writes the filtered documents, which saves reading them again;
- Trafilatura runs over the HTML files only;
- output without compression, large read buffers, and worker processes that are forked from one that has imported all;
- `--words split` replaces its English tokenizer (spaCy's rules) by `str.split`, faster than any that it comes with.

Gopher's rule of stop words is off, and of C4's rules lorem ipsum alone is on: the other side has no more.

It fails where a document could not be extracted. An extractor that cannot start, for a package that is missing, is no
error to datatrove: each document then waits for the timeout and is left out, which would pass for slowness.
"""

import argparse
import shutil
from pathlib import Path

import spacy  # noqa: F401  (imported here, before the workers are forked)
import trafilatura  # noqa: F401  (the same)
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.word_tokenizers import WordTokenizer

WORKERS = 2
_BUFFER_LINES = 4096
_FAILURES = ("timeout", "clean_error", "broken_process")
"""What an extractor counts documents under that it could not extract."""


class SplitWords(WordTokenizer):
    """Words by white space. Sentences are asked for by no rule that is on."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def run(source: Path, out: Path, language: "str | WordTokenizer", config: MinhashConfig) -> None:
    """All of it, stage after stage."""

    def stage(name: str, pipeline: list, tasks: int) -> None:
        stats = LocalPipelineExecutor(
            pipeline=pipeline,
            tasks=tasks,
            workers=min(tasks, WORKERS),
            logging_dir=str(out / "logs" / name),
            start_method="fork",
        ).run()
        for step in stats.stats:
            if failed := [name for name in _FAILURES if name in step.stats]:
                raise SystemExit(f"{step.name}: {', '.join(failed)}: not all documents were worked on")

    work = {name: str(out / name) for name in ("clean", "signatures", "buckets", "clusters", "kept")}
    c4 = C4QualityFilter(
        remove_citations=False,
        filter_no_terminal_punct=False,
        min_num_sentences=-1,
        min_words_per_line=-1,
        max_word_length=-1,
        filter_lorem_ipsum=True,
        filter_javascript=False,
        filter_curly_bracket=False,
        filter_policy=False,
        language=language,
    )
    clean = [
        JsonlReader(str(source), glob_pattern="html-*.jsonl"),
        Trafilatura(timeout=30),  # its own second is over before a cold start is
        JsonlReader(str(source), glob_pattern="text-*.jsonl"),  # hands on what came before
        GopherQualityFilter(min_stop_words=0, language=language),
        c4,
        JsonlWriter(work["clean"], compression=None),
        MinhashDedupSignature(work["signatures"], config, language),
    ]
    stage("clean", clean, WORKERS)
    buckets = MinhashDedupBuckets(work["signatures"], work["buckets"], config=config, lines_to_buffer=_BUFFER_LINES)
    stage("buckets", [buckets], config.num_buckets)
    cluster = MinhashDedupCluster(work["buckets"], work["clusters"], config=config, lines_to_buffer=_BUFFER_LINES)
    stage("cluster", [cluster], 1)
    kept = [
        JsonlReader(work["clean"]),
        MinhashDedupFilter(work["clusters"], lines_to_buffer=_BUFFER_LINES),
        JsonlWriter(work["kept"], compression=None),
    ]
    stage("filter", kept, WORKERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--words", choices=("spacy", "split"), default="spacy")
    parser.add_argument("--bands", type=int, default=14)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--ngrams", type=int, default=5)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    config = MinhashConfig(n_grams=given.ngrams, num_buckets=given.bands, hashes_per_bucket=given.rows)
    run(given.source, given.out, "eng" if given.words == "spacy" else SplitWords(), config)


if __name__ == "__main__":
    main()
