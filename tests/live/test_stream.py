"""The protocol of the live server, whatever its clients do."""

import asyncio
import logging
import re
import threading
import time

import numpy as np
import pytest
from tornado.httpclient import HTTPError
from tornado.iostream import StreamClosedError

from mla_fairseq.live import worker
from mla_fairseq.live.client import Client
from mla_fairseq.live.messages import LARGEST
from mla_fairseq.live.model import Model
from mla_fairseq.live.server import UNREAD
from mla_fairseq.live.worker import Streams
from tests.live.serving import END, FIRST, Connection, Live, play
from tests.streaming.conftest import noise

SPEECH = noise(1.0)
WRONG = {
    "text": (["hello"], "the message is not JSON (Expecting value: line 1 column 1 (char 0)): send an object"),
    "list": ([[1]], "the message is not a JSON object ([1]): send one such as"),
    "deep": (["[" * 60 + "]" * 60], "nested more than 50 levels deep"),
    "digits": (['{"sample_rate": 1' + "0" * 5000 + "}"], "the message is not JSON"),
    "no-rate": ([{}], "sample_rate is missing: send a whole number of Hz from 8000 to 192000"),
    "rate-zero": ([{"sample_rate": 0}], "sample_rate is 0: send"),
    "rate-nan": (['{"sample_rate": NaN}'], "sample_rate is nan: send"),
    "rate-infinite": (['{"sample_rate": Infinity}'], "sample_rate is inf: send"),
    "rate-low": ([{"sample_rate": 1}], "sample_rate is 1: send"),
    "rate-huge": ([{"sample_rate": 1e300}], "sample_rate is 1e+300: send"),
    "rate-fraction": ([{"sample_rate": 44_100.5}], "sample_rate is 44100.5: send"),
    "rate-text": ([{"sample_rate": "48000"}], "sample_rate is '48000': send"),
    "rate-list": ([{"sample_rate": ["x" * 100]}], f"sample_rate is ['{'x' * 38}...: send"),
    "policy": ([FIRST | {"policy": "best"}], "policy is 'best': use one of wait-k, align-att, local-agreement, hold"),
    "policy-type": ([FIRST | {"policy": {}}], "policy is {}: use one of"),
    "number-low": ([FIRST | {"number": 0}], "number is 0: wait-k has 1 to 3"),
    "number-high": ([FIRST | {"number": 4}], "number is 4: wait-k has 1 to 3"),
    "number-of-another": ([FIRST | {"policy": "hold", "number": 21}], "number is 21: hold has 0 to 20"),
    "number-text": ([FIRST | {"number": "2"}], "number is '2': wait-k has 1 to 3"),
    "number-fraction": ([FIRST | {"number": 2.5}], "number is 2.5: wait-k has"),
    "number-bool": ([FIRST | {"number": True}], "number is True: wait-k has"),
    "language": ([FIRST | {"tgt_lang": "xx"}], "tgt_lang is 'xx': use one of de"),
    "key": (
        [FIRST | {"lang": "de"}],
        "'lang' is no key of the first message: use policy, number, tgt_lang, sample_rate",
    ),
    "audio-first": ([SPEECH], 'audio came before the first message: send {"sample_rate": 48000}'),
    "end-first": ([END], "'end' is no key of the first message"),
    "rate-again": ([FIRST, FIRST], "'sample_rate' is no key of a later message: use policy, number, tgt_lang, end"),
    "end-number": ([FIRST, {"end": 1}], "end is 1: send true"),
    "later-text": ([FIRST, "x"], "the message is not JSON"),
    "later-policy": ([FIRST, SPEECH, {"policy": "monotonic"}], "policy is 'monotonic': use one of wait-k"),
    "half": ([FIRST, b"123"], "the audio has 3 bytes, which are no int16 samples: send two bytes for each"),
    "large": ([FIRST, b"1" * (LARGEST + 1)], "the message is too large (65537 bytes): send at most 65536"),
    "large-text": (["1" * (LARGEST + 1)], "the message is too large (65537 bytes)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_message_is_answered_and_ends_the_stream(model: Model, name: str) -> None:
    messages, error = WRONG[name]

    async def scenario(live: Live) -> None:
        client = await live.connect(*messages)
        answers, code = await client.read_all()
        assert error in answers[-1]["error"]
        assert (answers[-1].keys(), code) == ({"error"}, 1008)
        await live.empty()

    play(model, scenario)


def test_a_frame_that_nobody_may_send_is_not_read(model: Model) -> None:
    async def scenario(live: Live) -> None:
        client = await live.ready()
        client.socket.write_message(b"1" * (UNREAD + 2), binary=True)
        answers, code = await client.read_all()
        assert (answers, code) in (([], 1009), ([], None))  # the client may not get to read the code
        await live.empty()
        await live.ready()

    play(model, scenario)


def test_a_taken_place_is_free_again(model: Model) -> None:
    async def scenario(live: Live) -> None:
        first = await live.ready()
        second = await live.connect(FIRST)
        assert await second.read_all() == ([{"error": "all places are taken (1): try again later"}], 1013)
        first.socket.close()
        await live.empty()
        await live.ready()

    play(model, scenario, places=1)


@pytest.mark.parametrize("messages", [[], [FIRST], [FIRST, SPEECH], [FIRST, b"", {"number": 2}]])
def test_a_silent_client_loses_its_place(model: Model, messages: list[object]) -> None:
    async def scenario(live: Live) -> None:
        client = await live.connect(*messages)
        answers, code = await client.read_all()
        assert answers[-1] == {"error": "no audio for 0.1 s, so your place is free for others: start again"}
        assert code == 1000
        await live.empty()

    play(model, scenario, idle=0.1)


def test_a_client_that_waits_for_the_server_keeps_its_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Client, samples: np.ndarray, final: bool = False) -> list[dict]:
        time.sleep(0.1)
        return []

    monkeypatch.setattr(Client, "push", slow)

    async def scenario(live: Live) -> None:
        client = await live.ready()
        await client.send(noise(1.5), END)  # a message of 15 turns
        answers, code = await client.read_all()
        assert (answers[-1].keys(), code) == ({"end", "heard"}, 1000)

    play(model, scenario, idle=0.5)


def test_audio_keeps_the_place(model: Model) -> None:
    async def scenario(live: Live) -> None:
        client = await live.ready()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await client.send(bytes(640))
        await client.send(END)
        answers, code = await client.read_all()
        assert (answers[-1], code) == ({"end": True, "heard": 160}, 1000)

    play(model, scenario, idle=0.5)


def test_a_half_open_connection_is_closed(model: Model) -> None:
    async def scenario(live: Live) -> None:
        for request in (b"", b"GET / HT", b"POST /model HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1"):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(request)
            await reader.read()  # until the server closes it
            writer.close()

    play(model, scenario, idle=0.1)


async def close(client: Connection) -> None:
    client.socket.close()


async def break_off(client: Connection) -> None:
    client.break_off()


async def flood_and_break_off(client: Connection) -> None:
    for _ in range(50):
        client.socket.write_message(bytes(noise(2.0)), binary=True)
    client.break_off()


STATES = {
    "connected": [],
    "ready": [FIRST],
    "speaking": [FIRST, SPEECH],
    "ending": [FIRST, SPEECH, END],
    "changing": [FIRST, SPEECH, {"policy": "hold"}],
}


@pytest.mark.parametrize("leave", [close, break_off, flood_and_break_off])
@pytest.mark.parametrize("state", STATES)
def test_a_client_that_leaves_frees_everything(
    model: Model, state: str, leave, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[Streams] = []
    monkeypatch.setattr(worker, "Streams", lambda model: workers.append(Streams(model)) or workers[-1])

    async def scenario(live: Live) -> None:
        await leave(await live.connect(*STATES[state]))
        other = await live.ready()
        assert len(workers[0].clients) in (1, 2)
        other.socket.close()
        await live.empty()
        while workers[0].clients:
            await asyncio.sleep(0.01)

    play(model, scenario)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_server_that_stops_sends_its_clients_an_error(model: Model) -> None:
    async def scenario(live: Live) -> None:
        clients = [await live.connect(), await live.ready(), await live.connect(FIRST, noise(2.0), noise(2.0))]
        await clients[2].read()
        live.service.stop()
        for client in clients:
            answers, code = await client.read_all()
            assert (answers[-1], code) == ({"error": "the server has stopped: start it again"}, 1001)

    play(model, scenario)


def test_a_fault_of_the_model_ends_one_stream(model: Model, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    push = Client.push

    def fail(self: Client, samples: np.ndarray, final: bool = False) -> list[dict]:
        if samples.any():
            raise ValueError("the scores of the model are not finite")
        return push(self, samples, final)

    monkeypatch.setattr(Client, "push", fail)

    async def scenario(live: Live) -> None:
        one, other = await live.ready(), await live.ready()
        await one.send(SPEECH)
        assert await one.read_all() == ([{"error": "the server failed: try again, or look at its log"}], 1011)
        await other.send(np.zeros(1600, np.int16), END)
        assert (await other.read_all())[1] == 1000

    play(model, scenario)
    assert "the scores of the model are not finite" in caplog.text


def test_a_client_that_is_not_served_waits_with_its_audio(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    release, push = threading.Event(), Client.push

    def slow(self: Client, samples: np.ndarray, final: bool = False) -> list[dict]:
        return push(self, samples, final) if release.wait(30) else []

    async def scenario(live: Live) -> None:
        fast = await live.ready()
        monkeypatch.setattr(Client, "push", slow)
        sent = [fast.socket.write_message(bytes(LARGEST), binary=True) for _ in range(400)]  # 26 MB
        (stream,) = live.service.clients
        await asyncio.sleep(0.3)
        assert not sent[-1].done()
        assert stream.place.heard == 0
        fast.break_off()
        release.set()
        await live.empty()
        with pytest.raises(StreamClosedError):
            await fast.socket.protocol.stream.write(b"")
        for future in sent:
            future.cancelled() or future.exception()

    play(model, scenario)


def test_who_was_late_catches_up_with_slices_and_not_with_messages(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, push, sizes = threading.Event(), Client.push, []

    def slow(self: Client, samples: np.ndarray, final: bool = False) -> list[dict]:
        sizes.append(len(samples))
        return push(self, samples, final) if release.wait(30) else []

    async def scenario(live: Live) -> None:
        late = await live.ready()
        monkeypatch.setattr(Client, "push", slow)
        await late.send(*(noise(0.02) for _ in range(20)))
        (stream,) = live.service.clients
        while len(stream.pending) < 19 * 320:  # the worker has the first message
            await asyncio.sleep(0.01)
        release.set()
        await late.send(END)
        assert (await late.read_all())[1] == 1000

    play(model, scenario)
    assert sizes == [320, 1600, 1600, 1600, 1280, 0]


def test_clients_take_turns(model: Model) -> None:
    """At one worker, a client that sends a minute at once delays another one by its share only."""
    order: list[str] = []

    async def finish(name: str, client: Connection) -> None:
        await client.send(END)
        assert (await client.read_all())[1] == 1000
        order.append(name)

    async def scenario(live: Live) -> None:
        long, short = await live.ready(), await live.ready()
        await long.send(*(bytes(noise(2.0)) for _ in range(30)))
        await short.send(*(noise(0.04) for _ in range(5)))
        await asyncio.gather(finish("long", long), finish("short", short))

    play(model, scenario)
    assert order == ["short", "long"]


def test_a_reader_that_is_too_slow_loses_its_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that nobody reads wait in the connection of their client, who gets no further."""
    monkeypatch.setattr(Client, "push", lambda *_: [{"words": "x" * 1_000_000}] * 20)

    async def scenario(live: Live) -> None:
        slow = await live.ready()
        await slow.send(SPEECH)
        (stream,) = live.service.clients
        while stream in live.service.clients:
            await asyncio.sleep(0.01)
        slow.break_off()
        await live.empty()

    play(model, scenario, idle=0.2)


REQUESTS = {
    "folder above": "GET /..%2fserver.py",
    "code": "GET /../server.py",
    "zero": "GET /%00",
    "broken text": "GET /%ff",
    "unknown": "GET /favicon.ico",
    "no path": "OPTIONS *",
    "other method": "DELETE /model",
    "broken body": "POST /model",
    "broken body of nothing": "POST /x",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_strange_request_is_refused_and_not_logged(model: Model, name: str, caplog) -> None:
    """Anybody could fill the log."""
    head = "Host: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n\r\nhello"

    async def scenario(live: Live) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(f"{REQUESTS[name]} HTTP/1.1\r\n{head}".encode())
        assert re.match(rb"HTTP/1.1 40[0345] ", await reader.readline())
        writer.close()
        low = await live.connect({"sample_rate": 8000}, bytes(800), END)
        assert (await low.read_all())[1] == 1000

    play(model, scenario)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


ORIGINS = {
    "program": ({}, True),
    "page": ({"Host": "localhost:8800", "Origin": "http://localhost:8800"}, True),
    "proxy": ({"Host": "localhost:8800", "Origin": "https://example.org"}, True),
    "proxy-keeps-host": ({"Host": "example.org", "Origin": "https://example.org"}, True),
    "other-page": ({"Host": "localhost:8800", "Origin": "http://evil.org"}, False),
    "other-port": ({"Host": "localhost:8800", "Origin": "http://localhost:9000"}, False),
    "file": ({"Host": "localhost:8800", "Origin": "null"}, False),
    "broken": ({"Host": "localhost:8800", "Origin": "http://[evil"}, False),
    "other-name": ({"Host": "evil.org:8800", "Origin": "http://evil.org:8800"}, False),
    "broken-name": ({"Host": "[evil"}, False),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_only_pages_of_this_server_are_answered(model: Model, name: str) -> None:
    headers, allowed = ORIGINS[name]

    async def scenario(live: Live) -> None:
        for path in ("/", "/model", "/stream"):
            code = (await live.get(path, **headers)).code
            assert code == (400 if path == "/stream" else 200 if allowed else 403) or (not allowed and code == 403)
        if allowed:
            client = await live.connect(FIRST, **headers)
            assert await client.read() == {"ready": True}
        else:
            with pytest.raises(HTTPError, match=r"40[03]"):
                await live.connect(**headers)

    play(model, scenario, origins=["https://example.org"])


def test_a_public_server_has_any_name(model: Model) -> None:
    async def scenario(live: Live) -> None:
        assert (await live.get("/", Host="a.org", Origin="http://a.org")).code == 200
        assert (await live.get("/", Host="a.org", Origin="http://b.org")).code == 403
        assert (await live.get("/", Host="", Origin="null")).code in (400, 403)

    play(model, scenario, local=False)
