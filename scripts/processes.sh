# Sourced after lib.sh by the scripts that run other people's servers without Docker, for
# tests and for trying things out: processes that listen on loopback only, on ports that were
# free, and outlive the script. Each has a folder of its own with its `pid` and its `log`.
# shellcheck shell=bash

# How long a process may take to start and to stop. Far more than is needed.
start_seconds=90
stop_seconds=30
# One whose data goes too: there is nothing to wait for.
discard_seconds=2

# usage: says how the script is called, by its own head, and ends it.
usage() {
    sed -n 's/^# Usage: /usage: /p; s/^#        scripts/       scripts/p' "$0" >&2
    exit 2
}

# --- a process -----------------------------------------------------------------

# born PID: when it was started, in ticks since the system was, and success if it lives.
born() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # What is in front of the last ) may hold anything.
    read -ra stat <<<"${stat##*) }"
    [ "${stat[0]}" != Z ] && echo "${stat[19]}"
}

# spawn FOLDER COMMAND…: starts the process of FOLDER. It holds none of the script's pipes.
# COMMAND is `setsid` something, or a function that execs that, so that no signal to the
# script reaches the process.
spawn() {
    local folder=$1
    shift
    # One log for each start, so that what is found in it is news.
    [ ! -f "$folder/log" ] || mv "$folder/log" "$folder/log.before"
    (
        "$@" </dev/null >"$folder/log" 2>&1 &
        echo "$! $(born "$!")" >"$folder/pid"
    )
}

# pid_of FOLDER: its process, and success, if it lives. A pid alone proves nothing, it may
# belong to somebody else by now: it has to be as old as the one that was started.
pid_of() {
    local pid birth
    read -r pid birth 2>/dev/null <"$1/pid" || return 1
    [ "$(born "$pid")" = "${birth:-unknown}" ] && echo "$pid"
}

is_dead() {
    ! pid_of "$1" >/dev/null
}

# until_true SECONDS COMMAND…: whether COMMAND succeeds within that time.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# wait_up FOLDER COMMAND…: returns when COMMAND succeeds, which shows that the process
# answers; ends the script when it does not.
wait_up() {
    local folder=$1 why="is not up after $start_seconds s"
    shift
    is_up_or_dead() {
        "$@" || is_dead "$folder"
    }
    if until_true "$start_seconds" is_up_or_dead "$@"; then
        pid_of "$folder" >/dev/null && return
        why="has died"
    fi
    tail -n 30 "$folder/log" >&2
    die "$(basename "$folder") $why; the end of its log is above"
}

# end FOLDER SIGNAL SECONDS: ends the process, by force if it takes longer.
end() {
    local pid name
    pid=$(pid_of "$1") || return 0
    name=$(basename "$1")
    kill -s "$2" "$pid"
    # One that is paused sees no signal but KILL.
    kill -s CONT "$pid" 2>/dev/null || true
    until_true "$3" is_dead "$1" && return
    [ "$3" = "$discard_seconds" ] ||
        echo "$(basename "$0"): $name does not stop within $3 s; killing it" >&2
    kill -s KILL "$pid" 2>/dev/null || true
    until_true "$stop_seconds" is_dead "$1" || die "$name (process $pid) cannot be killed"
}

# end_all FOLDER…: ends processes whose data goes too.
end_all() {
    local folder
    # All get the signal first: they stop at the same time.
    for folder in "$@"; do
        kill -s TERM "$(pid_of "$folder")" 2>/dev/null || true
    done
    for folder in "$@"; do end "$folder" TERM "$discard_seconds"; done
}

# refuse_another FOLDER…: ends the script when a process is or was in one of the folders of $dir.
refuse_another() {
    local folder
    for folder in "$@"; do
        if pid_of "$folder" >/dev/null; then
            die "one runs already in $dir (see its file 'cluster'); stop it, or give --dir"
        fi
    done
    for folder in "$@"; do
        [ ! -d "$folder" ] || die "$dir holds one that ended; '$0 stop' removes it"
    done
}

# quietly COMMAND…: shows what it says only when it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || {
        echo "$said" >&2
        die "$1 failed"
    }
}

# Adds a free port to $ports. From below the range out of which the system serves
# outgoing connections: a killed process finds its ports free when it is started again.
ports=()
take_port() {
    local port
    while true; do
        port=$((15000 + RANDOM % 16000))
        [[ " ${ports[*]} " != *" $port "* ]] || continue
        # Nobody answers there.
        ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
        ports+=("$port")
        return
    done
}

# take_command NAME COMMAND [WORD…] [--dir DIR]: sets $command, $words, and $dir, which is NAME
# in the cache unless it is given.
take_command() {
    command=${2:-}
    dir="$cache/$1"
    words=()
    shift "$(($# > 1 ? 2 : 1))"
    while [ $# -gt 0 ]; do
        if [ "$1" = --dir ]; then
            [ $# -ge 2 ] || usage
            dir=$2
            shift
        else
            words+=("$1")
        fi
        shift
    done
    dir=$(realpath -m -- "$dir")
    # Only fs has words of its own.
    [ ${#words[@]} -eq 0 ] || [ "$command" = fs ] || usage
}
