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

tell() {
  printf '%s\n' "$1" >>"${GITHUB_OUTPUT:-/dev/null}"
}

fail() {
  # A message may quote an input; it must stay one command.
  local told=${1//'%'/%25}
  told=${told//$'\r'/%0D}
  printf '::error title=cedarbox policy review::%s\n' "${told//$'\n'/%0A}"
  tell exit-code=2
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
  local bundles=() line
  while IFS= read -r line; do [[ -z $line ]] || bundles+=("$line"); done <<<"${REVIEW_BUNDLE:-}"
  ((${#bundles[@]})) || fail "the input bundle names no bundle"
  mkdir -p -- "$place"
  # A directory of its own: a job may review twice.
  local reports form
  reports=$(mktemp -d -- "$place/report.XXXXXX")
  local options=(--format github)
  for form in sarif=review.sarif markdown=comment.md junit=junit.xml json=review.json; do
    options+=(--output "${form%%=*}=$reports/${form#*=}")
  done
  compare
  [[ -z $base ]] || options+=("--base=$base")
  [[ -z ${REVIEW_FAIL_LEVEL:-} ]] || options+=("--fail-level=$REVIEW_FAIL_LEVEL")
  [[ -z ${REVIEW_BASELINE:-} ]] || options+=("--baseline=$REVIEW_BASELINE")
  [[ -z ${REVIEW_ACCEPTED:-} ]] || options+=("--accepted=$REVIEW_ACCEPTED")
  while IFS= read -r line; do [[ -z $line ]] || options+=("--acceptor=$line"); done <<<"${REVIEW_ACCEPTORS:-}"
  local code=0
  "$venv/bin/cedarbox" policy review "${options[@]}" -- "${bundles[@]}" || code=$?
  tell "exit-code=$code"
  ((code != 2)) ||
    printf '::error title=cedarbox policy review::There was no review: an input cannot be used, see the log of the step\n'
  for form in sarif=review.sarif comment=comment.md junit=junit.xml json=review.json; do
    [[ ! -f $reports/${form#*=} ]] || tell "${form%%=*}=$reports/${form#*=}"
  done
  exit "$code"
}

# Sets base to the revision to compare with; empty for none.
compare() {
  base=${REVIEW_BASE:-}
  if [[ $base == none ]]; then
    base=
    return
  fi
  if [[ -n $base ]]; then
    # origin/main... is where the change left origin/main.
    [[ -z ${base%%...*} ]] || need "${base%%...*}"
    return
  fi
  base=$(merged_with)
  : "${base:=${REVIEW_EVENT_BASE:-}}"
  if [[ -z $base ]]; then
    printf '::notice title=cedarbox policy review::Nothing is compared: this event has no base; base can name one\n'
    return
  fi
  need "$base"
  [[ $(git rev-parse HEAD) != "$(git rev-parse "$base^{commit}")" ]] ||
    fail "what is checked out is the base of the change and not the change, as for pull_request_target"
}

# Prints the commit that GitHub merged the pull request into, when its merge is checked out. The base that the event
# names can be older: what was taken back since then would not count as permitted anew.
merged_with() {
  [[ ${GITHUB_REF:-} == refs/pull/*/merge && $(git rev-parse HEAD) == "${GITHUB_SHA:-}" ]] || return 0
  # Out of the text: a shallow clone has no parents.
  local parents
  parents=$(git cat-file commit HEAD | sed -n '/^$/,$d; s/^parent //p')
  [[ $parents != *$'\n'* ]] || printf '%s' "${parents%%$'\n'*}"
}

# Ends when the clone has no such commit; a shallow one is asked for it once.
need() {
  have "$1" || { [[ $1 != -* ]] && git fetch --quiet --no-tags --depth=1 origin -- "$1" && have "$1"; } ||
    fail "the revision $1 is not in this clone; check out with fetch-depth: 0"
}

have() {
  git rev-parse --quiet --verify --end-of-options "$1^{commit}" >/dev/null
}

case ${1:-} in
install | review) "$1" ;;
sarif | comment) "$venv/bin/python" -I "$here/publish.py" "$1" "${REVIEW_FILE:?}" ;;
*) fail "no such step" ;;
esac
