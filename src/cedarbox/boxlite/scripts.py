"""The shell scripts under which commands run in the guest. They need ``sh``, ``base64`` and ``tr``, nothing else."""

from __future__ import annotations

from typing import Final

__all__ = ["FLUSH", "KILL", "OPEN", "RUN"]

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# fd 3: pipe of standard output; 4: the real standard error; 5: pipe of standard error. Each stage closes what it does
# not own, else it would wait for itself. The shells' own standard error is /dev/null: they would add "Killed" to it.
# $1 and $2 halves of the marker, which is not in the arguments as a whole: a list of processes must not end the stream
# that carries it; $3 whether the command gets the real standard input, $4 working directory.
RUN: Final = f"""
m=$1=$2 i=$3 c=$4; shift 4
p=$PATH; PATH={_PATH}
if ! command -v base64 >/dev/null; then printf '!\\n'; exit 98; fi
b=$(command -v base64); PATH=$p
s=; if command -v setsid >/dev/null; then s=setsid; fi
main() {{ if ! cd "$c" 2>&5; then r=126; else
if [ "$i" = 1 ]; then (exec $s "$@" 2>&5 4>&- 5>&-); else (exec $s "$@" 2>&5 4>&- 5>&-) </dev/null; fi; r=$?; fi
printf '%s%s\\n' "$m" "$r"; printf '%s\\n' "$m" >&5; printf '#' >&4; }}
exec 4>&2 2>/dev/null
{{ {{ main "$@" 5>&1 >&3 3>&- | "$b" >&4 3>&- 4>&-; }} 3>&1 | "$b" 4>&-; }}
"""

# The first line of output is the pid, for the time when it has to be killed: a command can take the id out of its own
# environment. $1 working directory, $2 whether there is a terminal. A command without one reads nothing.
OPEN: Final = """
c=$1 t=$2; shift 2; echo $$
cd "$c" || exit 126
if [ "$t" = 1 ]; then : "${TERM:=xterm}"; export TERM; exec "$@"; fi
exec "$@" </dev/null
"""

# A base64 that waits holds at most one block of input and one buffer of output; 128 KiB push both out.
FLUSH: Final = f"""
PATH={_PATH}; k="CEDARBOX_EXEC=$1"
for p in /proc/[0-9]*; do {{ read -r c <"$p/comm"; }} 2>/dev/null || continue
[ "$c" = base64 ] || continue
case "
$(tr '\\0' '\\n' 2>/dev/null <"$p/environ")
" in *"
$k
"*) head -c 131072 /dev/zero >"$p/fd/0" & ;; esac; done; wait
"""

# $1 ids and $2 pids, each a list of words. Members: whoever has an id in its environment, the pids, and, until nothing
# is added, their children and sessions. SIGKILL, and again until a round finds nobody: a fork can slip through one.
KILL: Final = f"""
PATH={_PATH}; n=0 ids=$1 pids=$2
while [ $n -lt 20 ]; do n=$((n+1)); set_=" $pids "
for p in /proc/[0-9]*; do e="
$(tr '\\0' '\\n' 2>/dev/null <"$p/environ")
"; for k in $ids; do case "$e" in *"
CEDARBOX_EXEC=$k
"*) set_="$set_${{p#/proc/}} "; break;; esac; done; done
more=1; while [ $more = 1 ]; do more=0
for p in /proc/[0-9]*; do p=${{p#/proc/}}; case "$set_" in *" $p "*) continue;; esac
{{ read -r l <"/proc/$p/stat"; }} 2>/dev/null || continue; set -- ${{l##*) }}
case "$set_" in *" $2 "*|*" $4 "*) set_="$set_$p "; more=1;; esac; done; done
alive=0
for p in $set_; do {{ read -r l <"/proc/$p/stat"; }} 2>/dev/null || continue
case "${{l##*) }}" in Z*) ;; *) kill -9 "$p" 2>/dev/null; alive=1;; esac; done
[ $alive = 0 ] && exit 0
done; exit 1
"""
