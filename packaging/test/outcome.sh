# shellcheck shell=bash
# For the tests here: says of each sentence whether it holds, and counts.
passed=0 failed=0 skipped=0
# A script that runs the same sentences several times says here of what.
about=''
# What a script shows of a failure, beside the command's own output.
details() { :; }
ok() { # "sentence" COMMAND...
    local sentence=$about$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok - $sentence"
        passed=$((passed + 1))
    else
        echo "not ok - $sentence"
        sed 's/^/    /' <<< "$output"
        details
        failed=$((failed + 1))
    fi
}
skip() {
    echo "SKIPPED - $about$*"
    skipped=$((skipped + 1))
}
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { "$@"; return 1; }
        sleep 0.1
    done
}
outcome() { # the last line, and the exit code
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
