from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.data.feed import IGNORE, Feed, MicroBatch, valid_batches
from stretto.data.order import permute
from stretto.data.tokens import TokenSet, TokenWriter
from stretto.errors import DataError

END = 0
VOCAB = 2**15


def token_set(path: Path, lengths: list[int], *, shard_tokens: int = 2**28) -> TokenSet:
    """Documents of `lengths` tokens, no token but the end of text twice."""
    with TokenWriter(path, vocab_size=VOCAB, end_of_text=END, shard_tokens=shard_tokens) as writer:
        start = 1
        for length in lengths:
            writer.add(np.array([*range(start, start + length - 1), END]))
            start += length
    return TokenSet.open(path, verify=True)


def row(lengths: list[int], start: int, *, seq: int, mask: bool) -> list[list[int]]:
    """Tokens, targets, documents, positions of a window, written out one token at a time."""
    stream = []
    for document, length in enumerate(lengths):
        first = sum(lengths[:document]) + 1
        stream += [(first + k, document) for k in range(length - 1)] + [(END, document)]
    tokens, targets, documents, positions = [], [], [], []
    for at in range(start, start + seq):
        token, document = stream[min(at, len(stream) - 1)]
        begin = max(start, sum(lengths[:document]) if mask else start)
        tokens.append(token)
        documents.append(
            len({stream[min(k, len(stream) - 1)][1] for k in range(start, at + 1)}) - 1
        )
        positions.append(at - begin)
        if at + 1 >= len(stream) or (mask and stream[at + 1][1] != document):
            targets.append(IGNORE)
        else:
            targets.append(stream[at + 1][0])
    return [tokens, targets, documents, positions]


def check(found: MicroBatch, rows: list[list[list[int]]], *, mask: bool) -> None:
    tokens, targets, documents, positions = (list(column) for column in zip(*rows, strict=True))
    assert found.tokens_BT.tolist() == tokens
    assert found.targets_BT.tolist() == targets
    assert found.positions_BT.tolist() == positions
    several = mask and any(max(each) for each in documents)
    assert (found.documents_BT is not None) == several
    if found.documents_BT is not None:
        assert found.documents_BT.tolist() == documents
        assert found.documents_BT.dtype == np.int32
    for array in (found.tokens_BT, found.targets_BT, found.positions_BT):
        assert array.dtype == np.int64
        assert array.flags.c_contiguous
        assert array.flags.writeable


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths=LENGTHS, mask=st.booleans(), data=st.data())
def test_a_micro_batch_is_what_writing_it_out_by_hand_gives(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], mask: bool, data: st.DataObject
) -> None:
    lengths = [*lengths, 2]
    path = tmp_path_factory.mktemp("feed") / "set"
    tokens = token_set(path, lengths, shard_tokens=data.draw(st.integers(1, 50)))
    seq = data.draw(st.integers(1, sum(lengths) - 1))
    feed = Feed(tokens, seq=seq, seed=7, mask_documents=mask)
    assert feed.samples == (sum(lengths) - 1) // seq
    step, size, replicas, micro_batches = (data.draw(st.integers(1, 4)) for _ in range(4))
    replica = data.draw(st.integers(0, replicas - 1))
    micro_batch = data.draw(st.integers(0, micro_batches - 1))
    found = feed.micro_batch(
        step,
        micro_batch,
        size=size,
        replica=replica,
        replicas=replicas,
        micro_batches=micro_batches,
    )
    first = step * micro_batches * replicas * size + (micro_batch * replicas + replica) * size
    rows = []
    for number in range(first, first + size):
        epoch, place = divmod(number, feed.samples)
        window = int(permute(place, size=feed.samples, seed=7, epoch=epoch))
        rows.append(row(lengths, window * seq, seq=seq, mask=mask))
    check(found, rows, mask=mask)


@settings(deadline=None)
@given(lengths=LENGTHS, mask=st.booleans(), seq=st.integers(1, 30), size=st.integers(1, 4))
def test_evaluation_reads_everything_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    mask: bool,
    seq: int,
    size: int,
) -> None:
    lengths = [*lengths, 2]
    tokens = token_set(tmp_path_factory.mktemp("valid") / "set", lengths)
    batches = list(valid_batches(tokens, seq=seq, size=size, mask_documents=mask))
    for number, batch in enumerate(batches):
        starts = [(number * size + k) * seq for k in range(size)]
        check(batch, [row(lengths, s, seq=seq, mask=mask) for s in starts], mask=mask)
    predicted = [t for batch in batches for t in batch.targets_BT.ravel() if t != IGNORE]
    stream = tokens[np.arange(tokens.size)]
    firsts = tokens.documents if mask else [0]
    assert predicted == np.delete(stream, firsts).tolist()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenSet:
    return token_set(tmp_path_factory.mktemp("feed") / "set", [37, 1, 200, 5, 90, 2, 2, 300, 60])


def order(feed: Feed, step: int, *, size: int, replicas: int, micro_batches: int) -> list[int]:
    """First tokens of all rows of a step, by micro-batch, then by replica."""
    return [
        int(token)
        for micro_batch in range(micro_batches)
        for replica in range(replicas)
        for token in feed.micro_batch(
            step,
            micro_batch,
            size=size,
            replica=replica,
            replicas=replicas,
            micro_batches=micro_batches,
        ).tokens_BT[:, 0]
    ]


def test_what_a_step_reads_does_not_depend_on_how_it_is_dealt_out(tokens: TokenSet) -> None:
    feed = Feed(tokens, seq=8, seed=3)
    for step in (0, 1, 40):
        expected = order(feed, step, size=24, replicas=1, micro_batches=1)
        for size in (1, 2, 3, 4, 6, 8, 12, 24):
            for replicas in (r for r in range(1, 25) if 24 % (size * r) == 0):
                micro_batches = 24 // (size * replicas)
                got = order(feed, step, size=size, replicas=replicas, micro_batches=micro_batches)
                assert got == expected


def test_every_epoch_reads_every_window_once_each_time_in_another_order(tokens: TokenSet) -> None:
    feed = Feed(tokens, seq=8, seed=3)
    assert feed.samples == 87
    steps = [order(feed, step, size=5, replicas=2, micro_batches=3) for step in range(3 * 29 // 10)]
    rows = [token for step in steps for token in step][: 2 * 87]
    starts = Counter(tokens[8 * np.arange(87)].tolist())
    assert Counter(rows[:87]) == Counter(rows[87:]) == starts
    assert rows[:87] != rows[87:]


def test_another_seed_gives_another_order(tokens: TokenSet) -> None:
    one, same, other = (
        order(Feed(tokens, seq=8, seed=seed), 0, size=80, replicas=1, micro_batches=1)
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_fewer_tokens_than_a_window_are_refused_with_the_numbers(tmp_path: Path) -> None:
    tokens = token_set(tmp_path / "set", [5, 3])
    assert Feed(tokens, seq=7, seed=0).samples == 1
    with pytest.raises(
        DataError, match=r"8 tokens do not fill one window of seq \+ 1 = 9; .* at most 7"
    ):
        Feed(tokens, seq=8, seed=0)
