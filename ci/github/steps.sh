#!/usr/bin/env bash
# The steps of the Action, run as: steps.sh install | review | sarif | comment
#
# What the workflow or the pull request says comes in variables of the environment only, and is never a part of a
# command line that a shell reads. Python runs isolated (-I): a module in the checkout must not be imported.
#
# Exit codes: those of cedarbox policy review; 2 also when nothing could be installed.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
place=${RUNNER_TEMP:?}/cedarbox-review
venv=$place/venv

fail() {
  # A message may quote an input; it must stay one command.
  local told=${1//'%'/%25}
  told=${told//$'\r'/%0D}
  printf '::error title=cedarbox policy review::%s\n' "${told//$'\n'/%0A}"
  exit 2
}

install() {
  local python=${REVIEW_PYTHON:-python3} source=${REVIEW_INSTALL:-}
  "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is not Python 3.11 or newer; name one in the input python"
  mkdir -p -- "$place"
  "$python" -I -m venv "$venv" || fail "$python can make no virtual environment"
  local options=(--quiet --disable-pip-version-check)
  if [[ -n ${REVIEW_WHEELS:-} ]]; then
    [[ -d $REVIEW_WHEELS ]] || fail "the input wheels names no directory: $REVIEW_WHEELS"
    options+=(--no-index --find-links "$REVIEW_WHEELS")
    : "${source:=cedarbox[prove]}"
  fi
  : "${source:=$(cd -- "$here/../.." && pwd)[prove]}"
  "$venv/bin/python" -I -m pip install "${options[@]}" -- "$source" || fail "cannot install $source"
}

review() {
  local bundles=() acceptors=() line
  while IFS= read -r line; do [[ -z $line ]] || bundles+=("$line"); done <<<"${REVIEW_BUNDLE:-}"
  ((${#bundles[@]})) || fail "the input bundle names no bundle"
  local options=(--format github)
  for form in sarif=review.sarif markdown=comment.md junit=junit.xml json=review.json; do
    options+=(--output "${form%%=*}=$place/${form#*=}")
  done
  if [[ -n ${REVIEW_BASE:-} ]]; then
    have "$REVIEW_BASE" || fail "the revision $REVIEW_BASE is not in this clone; check out with fetch-depth: 0"
    options+=("--base=$REVIEW_BASE")
  fi
  [[ -z ${REVIEW_FAIL_LEVEL:-} ]] || options+=("--fail-level=$REVIEW_FAIL_LEVEL")
  [[ -z ${REVIEW_BASELINE:-} ]] || options+=("--baseline=$REVIEW_BASELINE")
  [[ -z ${REVIEW_ACCEPTED:-} ]] || options+=("--accepted=$REVIEW_ACCEPTED")
  while IFS= read -r line; do [[ -z $line ]] || acceptors+=("--acceptor=$line"); done <<<"${REVIEW_ACCEPTORS:-}"
  rm -f -- "$place"/{review.sarif,comment.md,junit.xml,review.json}
  local code=0
  "$venv/bin/cedarbox" policy review "${options[@]}" "${acceptors[@]}" -- "${bundles[@]}" || code=$?
  printf 'exit-code=%s\n' "$code" >>"${GITHUB_OUTPUT:-/dev/null}"
  for name in sarif=review.sarif comment=comment.md junit=junit.xml json=review.json; do
    [[ ! -f $place/${name#*=} ]] || printf '%s=%s\n' "${name%%=*}" "$place/${name#*=}" >>"${GITHUB_OUTPUT:-/dev/null}"
  done
  exit "$code"
}

# Whether the clone has a commit; a shallow one is asked for it once.
have() {
  [[ $1 != -* ]] || return 1
  git rev-parse --quiet --verify --end-of-options "$1^{commit}" >/dev/null && return
  git fetch --quiet --no-tags --depth=1 origin -- "$1" &&
    git rev-parse --quiet --verify --end-of-options "$1^{commit}" >/dev/null
}

case ${1:-} in
install | review) "$1" ;;
sarif) "$venv/bin/python" -I "$here/publish.py" sarif "$place/review.sarif" ;;
comment) "$venv/bin/python" -I "$here/publish.py" comment "$place/comment.md" ;;
*) fail "no such step" ;;
esac
