#!/bin/sh
# kemari @VERSION@: a program and the runtime that runs it, in one file.
#
# Below these lines, from one 64 KiB block to the next, stand the program's files, and last the
# runtime. The first start unpacks them into a folder of the user's own; every start then becomes
# (exec) the runtime: same process id, stdin and stdout untouched, no network. The layout was
# written by .ci/compile.ts.

block=65536
runtime=runtime-@RUNTIME_ID@/kemari
runtime_block=@RUNTIME_BLOCK@
runtime_bytes=@RUNTIME_BYTES@
runtime_sha256=@RUNTIME_SHA256@
program=program-@PROGRAM_ID@
# For each file: name, first block, blocks, SHA-256. The one that is started stands last.
program_files='@PROGRAM_FILES@'

case $0 in
  */*) self=$0 ;;
  *) if [ -f "./$0" ]; then self=./$0; else self=$(command -v -- "$0"); fi ;;
esac

# Whether FILE is ours alone, and has BYTES bytes.
is_whole() {
  [ -f "$1" ] && [ -O "$1" ] && [ ! -L "$1" ] || return 1
  size_of "$1"
  [ "$size" = "$2" ]
}

# Sets size. The fields of ls -n up to the size are the same everywhere, those after it are not.
size_of() {
  set -f
  set -- $(ls -ln "$1")
  set +f
  size=$5
}

# Whether the folder ROOT is ours, and holds everything this file would unpack. Nothing there is
# trusted that another user could have put there.
is_ready() {
  [ -O "$1" ] && [ ! -L "$1" ] && [ -O "$1/${runtime%/*}" ] && [ -O "$1/$program" ] || return 1
  [ -x "$1/$runtime" ] && is_whole "$1/$runtime" $runtime_bytes || return 1
  candidate=$1
  set -- $program_files
  while [ $# -gt 0 ]; do
    is_whole "$candidate/$program/$1" $(($3 * block)) || return 1
    shift 4
  done
}

# Copies COUNT blocks from FIRST on (all that follow, if COUNT is empty) to FILE, and checks them.
unpack_file() {
  dd if="$self" of="$1" bs=$block skip="$2" ${3:+count="$3"} 2>/dev/null || return 1
  command -v sha256sum >/dev/null || return 0
  found=$(sha256sum < "$1")
  [ "${found%% *}" = "$4" ]
}

# Unpacks into ROOT. Each file is complete, and checked, before it gets its name, so starting many
# at once, or dying half-way, leaves nothing broken.
unpack() (
  umask 077
  into=$1
  mkdir -p "$into"
  [ -d "$into" ] && [ -O "$into" ] && [ ! -L "$into" ] && [ -w "$into" ] || exit 1
  new=$(mktemp -d "$into/new-XXXXXX") || exit 1
  trap 'rm -rf "$new"; rmdir "$into"' EXIT # the latter only if nothing came into it
  trap 'exit 130' HUP INT TERM
  if ! is_whole "$into/$runtime" $runtime_bytes || [ ! -x "$into/$runtime" ]; then
    unpack_file "$new/kemari" $runtime_block '' $runtime_sha256 || exit 1
    # Where the file system is mounted noexec, only trying tells.
    chmod 700 "$new/kemari" && "$new/kemari" --version < /dev/null || exit 1
    mkdir -p "$into/${runtime%/*}" && mv -f "$new/kemari" "$into/$runtime" || exit 1
  fi
  set -- $program_files
  while [ $# -gt 0 ]; do
    unpack_file "$new/file" "$2" "$3" "$4" || exit 1
    mkdir -p "$into/$program" && mv -f "$new/file" "$into/$program/$1" || exit 1
    shift 4
  done
) >/dev/null 2>&1

start() {
  root=$1
  shift
  # The runtime's own small caches go beside it, and not where the user's Deno keeps its own.
  # The program may want to start this file again.
  KEMARI_EXECUTABLE=$self DENO_DIR=$root/deno DENO_NO_UPDATE_CHECK=1 DENO_NO_PACKAGE_JSON=1 \
    exec "$root/$runtime" run -A --quiet --no-prompt --no-config --no-lock --no-remote --no-npm \
    --cached-only --no-code-cache "$root/$program/kemari.js" "$@"
}

# Calls the function named $1 with each folder that may hold the unpacked files, until one agrees.
each_root() {
  case ${XDG_CACHE_HOME:-} in /*) "$1" "$XDG_CACHE_HOME/kemari" && root=$XDG_CACHE_HOME/kemari && return ;; esac
  case ${HOME:-} in /*) "$1" "$HOME/.cache/kemari" && root=$HOME/.cache/kemari && return ;; esac
  user=$(id -u)
  for folder in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
    "$1" "$folder/kemari-$user" && root=$folder/kemari-$user && return
  done
}

each_root is_ready && start "$root" "$@"
each_root unpack && is_ready "$root" && start "$root" "$@"

echo 'kemari: cannot unpack its runtime: tried $XDG_CACHE_HOME, ~/.cache, $TMPDIR, /tmp and /var/tmp' >&2
echo 'hint: set XDG_CACHE_HOME to a folder of yours with @NEEDED_MB@ MB of space, not mounted noexec;' \
  'if there is one, this file is damaged' >&2
exit 4
