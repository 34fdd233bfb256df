"""The chat's page in a real browser: two windows, two people, at two server processes."""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from servers import Server

PATIENCE_S = 30  # until a test gives up
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-timer-throttling",  # one of two windows is always behind the other
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--window-size=1000,700",
]


def program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise RuntimeError(
        f"no {names[0]} on PATH; on Debian: apt-get install chromium chromium-driver"
    )


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        yield running
    assert "Traceback" not in running.output, running.output


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    options = ChromeOptions()
    options.binary_location = program("chromium", "google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    # With both paths given, selenium has nothing to look for or to download.
    driver = Chrome(options=options, service=ChromeService(program("chromedriver")))
    yield driver
    driver.quit()


class Window:
    """One window of the browser, with one person in front of it."""

    def __init__(self, chrome: Chrome, server: Server, name: str, room: str) -> None:
        self.chrome = chrome
        chrome.switch_to.new_window("window")
        self.handle = chrome.current_window_handle
        chrome.get(f"http://{server.address}/#{room}")
        self.until(lambda: self.one("#name").is_displayed())
        self.one("#name").clear()
        self.one("#name").send_keys(name + Keys.ENTER)
        self.until(lambda: name in self.texts("#people .label"))

    def one(self, selector: str):
        self.chrome.switch_to.window(self.handle)
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        self.chrome.switch_to.window(self.handle)
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.chrome.execute_script(script, selector)

    def run(self, script: str):
        self.chrome.switch_to.window(self.handle)
        return self.chrome.execute_script(script)

    def until(self, condition) -> None:
        self.chrome.switch_to.window(self.handle)
        WebDriverWait(self.chrome, PATIENCE_S, poll_frequency=0.02).until(lambda _: condition())

    def until_heads(self, *names: str) -> None:
        self.until(lambda: self.texts("#people .label") == list(names))

    def say(self, text: str) -> None:
        self.one("#text").send_keys(text + Keys.ENTER)

    def close(self) -> None:
        self.one("body")
        self.chrome.close()
        self.chrome.switch_to.window(self.chrome.window_handles[0])


@pytest.fixture
def people(chrome, server, request):
    """Ana and Ben, in a room of their own."""
    room = f"room-{abs(hash(request.node.name)) % 10**9}"
    windows = [Window(chrome, server, "Ana", room), Window(chrome, server, "Ben", room)]
    yield windows
    errors = [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
    for window in windows:
        window.close()
    # Only a server that is away may be complained of.
    assert not [entry for entry in errors if "WebSocket connection" not in entry["message"]]


def test_what_one_says_arrives_in_the_window_of_the_other(people):
    ana, ben = people
    ana.say("hello from Ana")
    ben.until(lambda: ben.texts(".said:not(.mine) .text") == ["hello from Ana"])
    ben.say("and from Ben")
    ana.until(lambda: ana.texts(".said .text") == ["hello from Ana", "and from Ben"])
    assert ana.texts(".mine .text") == ["hello from Ana"]
    assert ana.texts(".pending") == []


def process_of(window):
    found = re.fullmatch(r"on process (\d+)", window.one("#my-state").text)
    return int(found[1])


def test_two_windows_are_at_two_processes_and_each_says_at_which(people):
    ana, ben = people
    assert process_of(ana) != process_of(ben)


def test_a_window_that_is_loaded_again_is_at_the_other_process(people):
    _, ben = people
    before = process_of(ben)  # the last that was opened
    ben.chrome.refresh()
    ben.until_heads("Ben", "Ana")
    assert process_of(ben) != before


def test_what_people_write_is_never_taken_for_html(people):
    ana, ben = people
    text = "<img src=x onerror=\"document.title='broken'\"><b>bold</b> &amp; javascript:alert(1)"
    ana.say(text)
    ben.until(lambda: ben.texts(".said .text") == [text])
    assert ben.texts(".text img, .text b, .text a") == []


def test_a_web_address_becomes_a_link(people):
    ana, ben = people
    ana.say("see https://example.org/a?b=1.")
    ben.until(lambda: ben.texts(".text a") == ["https://example.org/a?b=1"])
    assert ben.one(".text a").get_attribute("rel") == "noopener noreferrer"


def test_who_comes_and_who_goes_is_shown(chrome, server, people):
    ana, ben = people
    ana.until_heads("Ana", "Ben")
    cara = Window(chrome, server, "Cara", ana.run("return location.hash.slice(1)"))
    ben.until_heads("Ben", "Ana", "Cara")
    cara.until_heads("Cara", "Ana", "Ben")
    cara.close()
    ben.until_heads("Ben", "Ana")
    ben.until(lambda: "Cara joined · Cara left" in ben.texts(".notice")[-1])


def test_another_room_shows_how_much_is_new_there(people):
    ana, ben = people
    room = ana.run("return location.hash.slice(1)")
    ana.one("#new-room-name").send_keys("Side Room" + Keys.ENTER)
    ana.until_heads("Ana")
    ben.say("one")
    ben.say("two")
    ana.until(lambda: ana.texts(".badge:not(:empty)") == ["2"])
    assert ana.run("return document.title").startswith("(2) side-room")
    ana.one("body").send_keys(Keys.ALT, Keys.ARROW_UP)
    ana.until(lambda: ana.run("return location.hash.slice(1)") == room)
    assert ana.texts(".badge:not(:empty)") == []


def test_new_messages_leave_the_reader_of_old_ones_where_she_is(people):
    ana, ben = people
    ben.say("the beginning" + Keys.SHIFT + Keys.ENTER * 60 + Keys.SHIFT + "the end")
    ana.until(lambda: len(ana.texts(".said")) == 1)
    log = "document.querySelector('.log:not([hidden])')"
    ana.run(f"{log}.scrollTop = 0")
    ana.until(lambda: ana.one("#newer").is_displayed())
    ben.say("new")
    ana.until(lambda: ana.one("#newer").text == "↓ 1 new")
    assert ana.run(f"return {log}.scrollTop") == 0
    ana.one("#newer").click()
    ana.until(lambda: not ana.one("#newer").is_displayed())
    assert ana.run(f"return {log}.scrollTop") > 0


def test_a_new_nickname_is_seen_by_the_others(people):
    ana, ben = people
    ben.one("#rename").click()
    ben.one("#name").clear()
    ben.one("#name").send_keys("Benedict" + Keys.ENTER)
    ana.until_heads("Ana", "Benedict")


def test_the_page_says_when_the_server_is_away_and_comes_back_with_it(chrome):
    with Server() as first:
        ana = Window(chrome, first, "Ana", "lobby")
    ana.until(lambda: "connection is lost. Trying again in" in ana.one("#status").text)
    assert not ana.one("#send").is_enabled()
    ana.one("#text").send_keys("kept while away")
    with Server(port=first.port):
        ana.until(lambda: not ana.one("#status").is_displayed())
        ana.until(lambda: "You are back" in ana.texts(".notice")[-1])
        ana.one("#text").send_keys(Keys.ENTER)
        ana.until(lambda: ana.texts(".mine:not(.pending) .text") == ["kept while away"])
        ana.close()


def test_the_page_comes_back_by_itself_when_its_process_is_killed(chrome):
    with Server() as server:
        ana, ben = Window(chrome, server, "Ana", "lobby"), Window(chrome, server, "Ben", "lobby")
        ana.until_heads("Ana", "Ben")
        before = process_of(ben)
        os.kill(before, signal.SIGKILL)
        ben.until(lambda: any("You are back" in text for text in ben.texts(".notice")))
        assert process_of(ben) != before
        ben.say("hello again")
        ana.until(lambda: ana.texts(".said .text") == ["hello again"])
        ana.until_heads("Ana", "Ben")
        for window in (ana, ben):
            window.close()
