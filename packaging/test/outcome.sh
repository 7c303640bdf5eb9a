# shellcheck shell=bash
# For the tests here: says of each sentence whether it holds, and counts.
passed=0 failed=0 skipped=0
ok() { # "sentence" COMMAND...
    local sentence=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok - $sentence"
        passed=$((passed + 1))
    else
        echo "not ok - $sentence"
        sed 's/^/    /' <<< "$output"
        failed=$((failed + 1))
    fi
}
skip() {
    echo "SKIPPED - $*"
    skipped=$((skipped + 1))
}
outcome() { # the last line, and the exit code
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
