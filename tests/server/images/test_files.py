"""Pictures by URL: answers name them, this server sends them, and they do not stay for ever."""

from __future__ import annotations

import asyncio
import os
import re
import stat

import httpx
import pytest

from engines.errors import EngineryError
from server.app import create_app
from server.config import ServerConfig
from server.images.files import FileLimits, FolderImageFiles, MemoryImageFiles
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry
from tests.schemas.recording import CheckedApp
from tests.server.apps import CheckedClient, http_client
from tests.server.images.apps import GENERATIONS, image_model, opened, with_images

BODY = {"prompt": "a red circle", "seed": 3, "response_format": "url"}
LIMITS = FileLimits(max_files=3, max_bytes=100, lifetime_s=60)
NAME = re.compile(r"[0-9a-f]{32}\.(png|jpg|webp)")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path):
    """`store(clock, limits)`: an empty one of each kind."""

    def make(clock=None, limits=LIMITS):
        clock = clock or Clock()
        if request.param == "memory":
            return MemoryImageFiles(limits, clock)
        return FolderImageFiles(tmp_path / "pictures", limits, clock)

    return make


def test_a_file_is_found_under_a_name_that_nobody_can_guess(store):
    files = store()
    names = {files.put(b"abc", suffix) for suffix in ("png", "jpg", "webp")}
    assert len(names) == 3
    assert all(NAME.fullmatch(name) for name in names)
    for name in names:
        assert files.get(name).content == b"abc"
    assert files.get("0" * 32 + ".png") is None


def test_a_file_is_gone_when_its_time_is_over(store):
    clock = Clock()
    files = store(clock)
    first = files.put(b"abc", "png")
    clock.now += 40
    second = files.put(b"abc", "png")
    assert files.get(first).seconds_left == 20
    clock.now += 20
    assert files.get(first) is None
    assert files.get(second).seconds_left == 40
    files.purge()
    assert files.num_files == 1


def test_the_oldest_goes_first_when_there_are_too_many(store):
    files = store()
    names = [files.put(b"x", "png") for _ in range(5)]
    assert [files.get(name) is not None for name in names] == [False, False, True, True, True]


def test_the_oldest_goes_first_when_they_are_too_large(store):
    files = store()
    names = [files.put(b"x" * 40, "png") for _ in range(3)]
    assert [files.get(name) is not None for name in names] == [False, True, True]
    large = files.put(b"x" * 500, "png")
    assert files.num_files == 1
    assert len(files.get(large).content) == 500, "the newest is always there"


def test_nothing_of_a_folder_is_touched_but_its_own_pictures(tmp_path):
    keep = [tmp_path / "photo.png", tmp_path / ("a" * 32 + ".gif"), tmp_path / "notes.txt"]
    for path in keep:
        path.write_bytes(b"x" * 500)
    clock = Clock()
    files = FolderImageFiles(tmp_path, LIMITS, clock)
    names = [files.put(b"x" * 60, "png") for _ in range(3)]
    clock.now += 100
    files.purge()
    assert sorted(tmp_path.iterdir()) == sorted(keep)
    assert all(files.get(path.name) is None for path in keep)
    assert files.get(f"../{tmp_path.name}/photo.png") is None
    assert files.get(names[-1]) is None


def test_a_folder_is_found_again_by_the_next_process(tmp_path):
    clock = Clock()
    names = []
    for age in (50, 30, 10):
        files = FolderImageFiles(tmp_path, LIMITS, clock)
        names.append(files.put(b"abc", "png"))
        os.utime(tmp_path / names[-1], (clock.now - age, clock.now - age))
    again = FolderImageFiles(tmp_path, LIMITS, clock)
    assert [again.get(name).seconds_left for name in names] == [10, 30, 50]
    again.put(b"abc", "png")
    assert again.get(names[0]) is None, "the oldest goes first"
    (tmp_path / names[1]).unlink()
    assert again.get(names[1]) is None


def test_servers_that_share_a_folder_send_the_files_of_each_other(tmp_path):
    clock = Clock()
    first, second = (FolderImageFiles(tmp_path, LIMITS, clock) for _ in range(2))
    name = first.put(b"abc", "png")
    os.utime(tmp_path / name, (clock.now, clock.now))
    assert second.get(name).content == b"abc"
    assert second.num_files == 0, "the first one deletes it"
    clock.now += 61
    assert second.get(name) is None


def fetch(*requests, **settings):
    """Draw a picture, then do what `requests` say with its URL."""

    async def scenario(app):
        async with http_client(app) as client:
            answer = await client.post(GENERATIONS, json=BODY)
            assert answer.status_code == 200, answer.text
            url = answer.json()["data"][0]["url"]
            return answer, [await client.request(method, url) for method in requests]

    return with_images(scenario, image_model(), **settings)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_url_leads_to_the_picture(on_disk, tmp_path):
    folder = tmp_path / "made" / "here"
    settings = {"image_dir": folder} if on_disk else {}
    answer, (found, head) = fetch("GET", "HEAD", **settings)
    (entry,) = answer.json()["data"]
    assert entry.keys() == {"url", "revised_prompt"}
    assert re.fullmatch(r"http://test/v1/images/files/[0-9a-f]{32}\.png", entry["url"])
    assert found.status_code == head.status_code == 200
    assert opened(found.content).text["prompt"] == "a red circle"
    for response in (found, head):
        assert response.headers["content-type"] == "image/png"
        assert re.fullmatch(
            r"private, max-age=3[56]\d\d, immutable", response.headers["cache-control"]
        )
        assert response.headers["x-content-type-options"] == "nosniff"
    assert head.content == b""
    assert head.headers["content-length"] == str(len(found.content))
    assert folder.exists() == on_disk
    if on_disk:
        (path,) = folder.iterdir()
        assert path.read_bytes() == found.content
        assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize(
    ("format", "suffix", "media_type"),
    [("jpeg", ".jpg", "image/jpeg"), ("webp", ".webp", "image/webp")],
)
def test_every_format_has_its_suffix_and_type(format, suffix, media_type):
    async def scenario(app):
        async with http_client(app) as client:
            answer = await client.post(GENERATIONS, json=BODY | {"output_format": format, "n": 2})
            urls = [entry["url"] for entry in answer.json()["data"]]
            return [(url, await client.get(url)) for url in urls]

    found = with_images(scenario)
    assert len({url for url, _ in found}) == 2
    for url, response in found:
        assert url.endswith(suffix)
        assert response.headers["content-type"] == media_type


def test_a_picture_that_is_not_there_is_a_404():
    _, (missing,) = fetch("GET", image_lifetime=1e-9)
    assert missing.status_code == 404
    assert missing.json()["error"]["message"].startswith("There is no such picture")


def test_urls_need_no_key_and_drawing_does():
    app = create_app(ModelRegistry([image_model()]), ServerConfig(), ("secret",))
    client = CheckedClient(app)
    path = "/v1/images/files/" + "0" * 32 + ".png"
    assert client.simulate_get(path).status_code == 404
    assert client.simulate_head(path).status_code == 404
    assert client.simulate_post(path).status_code == 401
    assert client.simulate_post(GENERATIONS, json=BODY).status_code == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("pictures.example.org", "http://pictures.example.org/"),
        ("127.0.0.1:8123", "http://127.0.0.1:8123/"),
        ("[::1]:8123", "http://[::1]:8123/"),
        ("evil.example/x?", "http://10.0.0.7:80/"),
        ('a"><script>', "http://10.0.0.7:80/"),
        ("a b", "http://10.0.0.7:80/"),
        ("user@host", "http://10.0.0.7:80/"),
    ],
)
def test_a_url_begins_where_the_client_found_the_server(host, expected):
    async def scenario(app):
        async def behind_a_server(scope, receive, send):
            await app(scope | {"server": ("10.0.0.7", 80)}, receive, send)

        transport = httpx.ASGITransport(CheckedApp(behind_a_server))
        headers = {"Host": host, "X-Forwarded-Host": "elsewhere.example", "Forwarded": "host=x"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post(GENERATIONS, json=BODY, headers=headers)
            return answer.json()["data"][0]["url"]

    assert with_images(scenario).startswith(expected)


def test_while_the_server_drains_pictures_can_still_be_fetched():
    async def scenario():
        registry = ModelRegistry([image_model()])
        lifecycle = Lifecycle(registry, drain_timeout_s=0)
        await lifecycle.start()
        app = create_app(registry, ServerConfig(), (), lifecycle)
        try:
            async with http_client(app) as client:
                url = (await client.post(GENERATIONS, json=BODY)).json()["data"][0]["url"]
                lifecycle.is_draining = True
                return [await client.get(url), await client.post(GENERATIONS, json=BODY)]
        finally:
            await lifecycle.stop()

    assert [response.status_code for response in asyncio.run(scenario())] == [200, 503]


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineryError, match=r"image_dir .*file cannot be used"):
        create_app(ModelRegistry([image_model()]), ServerConfig(image_dir=tmp_path / "file"))
