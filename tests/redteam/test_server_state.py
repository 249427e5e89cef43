"""Attacks on what a model server keeps of a conversation, and on the sessions that keep it at a vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelSettings, OpenAIConversationsSession, Runner, SQLiteSession, function_tool
from agents.memory import OpenAIResponsesCompactionSession
from agents.models.openai_responses import OpenAIResponsesModel
from tests.redteam.attacks import denying, refused, responses_model, says
from tests.unit.guarded import Guarded
from tests.unit.model_server import model_server, response_call, response_text

from cedarbox.errors import ConfigurationError, PolicyDenied

LOOPBACK = 'ModelEndpoint::"127.0.0.1"'


@function_tool
def step() -> str:
    """Do nothing, so that there is a second turn."""
    return "ok"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("state", "agent", "options"),
    [
        ("prompt_template", {"prompt": {"id": "pmpt_1"}}, {}),
        ("conversation", {}, {"conversation_id": "conv_1"}),
        ("previous_response", {}, {"previous_response_id": "resp_0"}),
        ("previous_response", {}, {"auto_previous_response_id": True}),
        ("stored_response", {"model_settings": ModelSettings(store=True)}, {}),
        ("stored_response", {"model_settings": ModelSettings(prompt_cache_retention="24h", store=False)}, {}),
        ("stored_response", {}, {"auto_previous_response_id": True}),
    ],
    ids=["template", "conversation", "previous", "chain", "store", "cache", "chain that is kept"],
)
async def test_state_of_the_server(tmp_path: Path, state: str, agent: Any, options: Any, streamed: bool) -> None:
    """A run uses what a model server keeps: a prompt template, a conversation, a response. Each is a decision.

    The record is a denial of useServerState for it; nothing arrives.
    """
    guarded = Guarded(tmp_path, denying("useServerState", f'ServerState::"{state}"'))
    with model_server(response_text("leaked")) as server:
        await refused(guarded, Agent(name="a", model=responses_model(server), **agent), streamed=streamed, **options)
    assert server.requests == []
    assert guarded.denied() == [("useServerState", f'ServerState::"{state}"')]


async def test_item_that_the_server_fetches_from_its_store(tmp_path: Path) -> None:
    """The input refers to an item that the server kept of an earlier conversation.

    The record is a denial of useServerState for previous_response; nothing arrives.
    """
    guarded = Guarded(tmp_path, denying("useServerState", 'ServerState::"previous_response"'))
    with model_server(response_text("leaked")) as server:
        agent = Agent(name="a", model=responses_model(server))
        with pytest.raises(PolicyDenied):
            await Runner.run(agent, [{"type": "item_reference", "id": "msg_9"}], run_config=guarded.config)
    assert server.requests == []
    assert guarded.denied() == [("useServerState", 'ServerState::"previous_response"')]


async def test_response_that_the_server_keeps_unasked(tmp_path: Path) -> None:
    """Nothing is said about keeping the response, which the server then would keep. It is told not to.

    The record is one denial of useServerState for stored_response; both requests say store: false.
    """
    guarded = Guarded(tmp_path, denying("useServerState", 'ServerState::"stored_response"'))
    with model_server(response_call("step"), response_text("done")) as server:
        async with server.client() as client:
            agent = Agent(name="a", tools=[step], model=OpenAIResponsesModel("local", openai_client=client))
            result = await Runner.run(agent, "go", run_config=guarded.config)
    assert result.final_output == "done"
    assert [body["store"] for body in server.bodies] == [False, False]
    assert guarded.denied() == [("useServerState", 'ServerState::"stored_response"')]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_conversation_kept_by_a_session_of_the_vendor(tmp_path: Path, streamed: bool) -> None:
    """A session keeps the conversation at a vendor, around the model. Its client asks about each request.

    The record is a denial of useServerState for conversation; nothing arrives and the model is not called.
    """
    guarded = Guarded(tmp_path, denying("useServerState", 'ServerState::"conversation"'))
    model = says()
    with model_server({"id": "conv_1"}) as server:
        session = OpenAIConversationsSession(openai_client=server.client())
        await refused(guarded, Agent(name="a", model=model), session=session, streamed=streamed)
    assert (server.requests, model.calls) == ([], ())
    assert guarded.denied() == [("useServerState", 'ServerState::"conversation"')]


async def test_conversation_compacted_by_a_session_of_the_vendor(tmp_path: Path) -> None:
    """A session sends the whole conversation to a vendor to have it compacted. That is a use of a model.

    The record is a denial of useModel for the vendor's host; nothing arrives.
    """
    guarded = Guarded(tmp_path, denying("useModel", 'ModelEndpoint::"127.0.0.1"'))
    with model_server({"id": "x"}) as server:
        session = OpenAIResponsesCompactionSession(
            "s",
            SQLiteSession("s"),
            client=server.client(),
            compaction_mode="input",
            should_trigger_compaction=lambda _: True,
        )
        await refused(guarded, Agent(name="a", model=says()), session=session)
    assert server.requests == []
    assert guarded.denied() == [("useModel", LOOPBACK)]


async def test_session_of_a_class_that_nobody_knows(tmp_path: Path) -> None:
    """A subclass of the session of a vendor, and of a local one, could keep the conversation anywhere.

    The run is refused before it begins; there is no record, because nothing was decided.
    """

    class Elsewhere(SQLiteSession):
        pass

    guarded = Guarded(tmp_path)
    model = says()
    with pytest.raises(ConfigurationError, match="Elsewhere does not say"):
        await Runner.run(Agent(name="a", model=model), "go", run_config=guarded.config, session=Elsewhere("s"))
    assert model.calls == ()
