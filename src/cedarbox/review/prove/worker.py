"""A process that runs a solver: one JSON object a line in, one a line out. It imports nothing of cedarbox.

It is a program by itself because a solver can hang, crash or eat the memory of the machine; then it is killed, and the
one that asked goes on. Requests: ``{"solver", "text", "values", "seconds"}``; answers: ``{"result", "values",
"why"}`` with the result ``sat``, ``unsat`` or ``unknown``, and the values as the solver writes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import IO, Any

__all__ = ["main"]


def _limit(megabytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        size = megabytes * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    # If the one that asked is gone, nobody kills this process.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime + 4 * seconds + 10)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _z3(request: dict[str, Any]) -> dict[str, Any]:
    import z3

    context = z3.Context()

    def run(text: str) -> str:
        return str(z3.Z3_eval_smtlib2_string(context.ref(), text)).strip()

    head = f"(set-option :timeout {int(request['seconds'] * 1000)})(set-option :model.completion true)"
    result = run(f"{head}{request['text']}\n(check-sat)")
    if result != "sat":
        known = result if result in ("unsat", "unknown") else "unknown"
        return {"result": known, "why": "" if known == "unsat" else run("(get-info :reason-unknown)") or result[:200]}
    values = run(f"(get-value ({' '.join(request['values'])}))") if request["values"] else "()"
    return {"result": "sat", "values": values}


def _cvc5(request: dict[str, Any]) -> dict[str, Any]:
    import cvc5

    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("strings-exp", "true")
    solver.setOption("produce-models", "true")
    solver.setOption("tlimit-per", str(int(request["seconds"] * 1000)))
    solver.setLogic("ALL")
    parser = cvc5.InputParser(solver)
    symbols = parser.getSymbolManager()

    def run(text: str) -> str:
        said = ""
        reader = cvc5.InputParser(solver, symbols)
        reader.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "query")
        while not (command := reader.nextCommand()).isNull():
            said = str(command.invoke(solver, symbols)).strip() or said
        return said

    result = run(f"{request['text']}\n(check-sat)")
    if result != "sat":
        known = result if result in ("unsat", "unknown") else "unknown"
        return {"result": known, "why": "" if known == "unsat" else result[:200]}
    values = run(f"(get-value ({' '.join(request['values'])}))") if request["values"] else "()"
    return {"result": "sat", "values": values}


def _answer(line: str) -> dict[str, Any]:
    request = json.loads(line)
    _limit_cpu(request["seconds"])
    try:
        return {"z3": _z3, "cvc5": _cvc5}[request["solver"]](request)
    except MemoryError:
        return {"result": "unknown", "why": "the solver ran out of memory"}
    except Exception as error:  # noqa: BLE001  # whatever it is, the one that asked is told
        return {"result": "unknown", "why": f"{type(error).__name__}: {error}"[:500]}


def main(answers: IO[str], megabytes: int) -> None:
    """Answer until there are no more requests.

    Args:
        answers: Where answers go.
        megabytes: How much memory the process may take.
    """
    _limit(megabytes)
    # A terminal interrupts all the processes in front of it; the one that asked ends this one when it wants to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Solvers print to the standard output now and then; what they print must not pass for an answer.
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(kept, int(sys.argv[1]))
