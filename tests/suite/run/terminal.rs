//! On a terminal: Ctrl-C, Ctrl-Z and `fg` as without the wrapper. A Python program plays terminal and shell.

use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{python, stderr, stdout};

/// Opens a terminal, runs an interactive shell in it, and offers `type(text)` and `expect(text)`, which returns what came before.
const SHELL: &str = r"
import os, pty, select, sys, time
binary, socket = sys.argv[1:3]
run = f'{binary} --socket {socket} --'
mark = f'sleep 7{os.getpid():07}'
pid, fd = pty.fork()
if pid == 0:
    os.environ['PS1'] = 'prompt> '
    os.environ['ENV'] = ''
    os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
seen = ''
def type(text):
    os.write(fd, text.encode())
def expect(text):
    global seen
    end = time.monotonic() + 40
    while text not in seen:
        if time.monotonic() > end:
            print('expected', repr(text), 'in', repr(seen)); sys.stdout.flush(); os._exit(1)
        if select.select([fd], [], [], 0.1)[0]:
            try: seen += os.read(fd, 4096).decode(errors='replace')
            except OSError: break
    before, _, seen = seen.partition(text)
    return before
def state(mark):
    for entry in os.listdir('/proc'):
        try:
            if entry.isdigit() and open(f'/proc/{entry}/cmdline').read().replace('\0', ' ').startswith(mark):
                return open(f'/proc/{entry}/stat').read().rsplit(')', 1)[1].split()[0]
        except OSError: pass
    return None
def until(what, condition):
    end = time.monotonic() + 40
    while not condition():
        if time.monotonic() > end:
            print('never:', what); sys.stdout.flush(); os._exit(1)
        time.sleep(0.02)
expect('prompt> ')
type('stty -echo\n')
expect('prompt> ')
";

fn in_a_terminal(steps: &str) {
    let daemon = ScriptedDaemon::allowing();
    let program = format!("{SHELL}\n{steps}\ntype('exit\\n')\nprint('done')\n");
    let socket = daemon.socket();
    let output = python(&program, &[env!("CARGO_BIN_EXE_machineid-run").as_ref(), socket.as_ref()]);
    assert!(output.status.success() && stdout(&output).ends_with("done\n"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn the_command_reads_and_sets_the_terminal_and_the_shell_gets_it_back() {
    in_a_terminal(
        "type(f\"{run} sh -c 'read line; stty sane -echo; echo got $line'\\n\")\ntime.sleep(0.3)\ntype('hello\\n')\n\
         expect('got hello')\nexpect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 0')",
    );
}

#[test]
fn ctrl_c_reaches_the_command_once_and_the_prompt_comes_back() {
    in_a_terminal(
        "agent = \"import os,signal,sys,time\\nsignal.signal(2, lambda *_: os.write(1, b'interrupted\\\\n'))\\nprint('ready', flush=True)\\n\
         t = time.time()\\nwhile time.time() < t + 1: time.sleep(0.1)\\nsys.exit(5)\"\n\
         open(socket + '.py', 'w').write(agent)\ntype(f'{run} python3 {socket}.py\\n')\nexpect('ready')\ntype('\\x03')\n\
         expect('interrupted')\nassert 'interrupted' not in expect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 5')\n\
         type(f'{run} {mark}\\n')\nuntil('it sleeps', lambda: state(mark) == 'S')\ntime.sleep(0.2)\ntype('\\x03')\n\
         expect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 130')",
    );
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    in_a_terminal(
        "type(f\"{run} sh -c 'echo ready; read line; echo got $line; exit 4'\\n\")\nexpect('ready')\ntime.sleep(0.2)\ntype('\\x1a')\n\
         expect('Stopped')\nexpect('prompt> ')\ntype('jobs\\n')\nexpect('Stopped')\nexpect('prompt> ')\ntype('fg\\n')\n\
         time.sleep(0.3)\ntype('hello\\n')\nexpect('got hello')\nexpect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 4')",
    );
}

#[test]
fn in_the_background_it_does_not_take_the_terminal_until_it_is_given_it() {
    in_a_terminal(
        "type(f\"{run} sh -c 'sleep 0.2; echo working; read line; echo got $line' &\\n\")\nexpect('prompt> ')\n\
         type('echo mine\\n')\nexpect('mine')\nexpect('working')\n\
         until('it is stopped', lambda: state(f'{binary} --socket {socket}') == 'T')\ntype('\\n')\nexpect('Stopped')\nexpect('prompt> ')\n\
         type('fg\\n')\ntime.sleep(0.3)\ntype('hello\\n')\nexpect('got hello')\nexpect('prompt> ')",
    );
}

#[test]
fn in_a_pipeline_the_other_commands_keep_the_terminal_until_it_is_needed() {
    in_a_terminal(
        "type(f\"{run} sh -c 'read line; echo got $line' | cat\\n\")\ntime.sleep(0.3)\ntype('hello\\n')\nexpect('got hello')\n\
         expect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 0')",
    );
}

#[test]
fn ctrl_c_ends_a_script_around_it_as_without_it() {
    // With the terminal handed over, and without.
    for redirection in ["", ">/dev/null", "</dev/null"] {
        in_a_terminal(&format!(
            "open(socket + '.sh', 'w').write(f'for i in 1 2 3; do {{run}} {{mark}} {redirection}; echo went on; done\\n')\n\
             type(f'bash {{socket}}.sh\\n')\nuntil('it sleeps', lambda: state(mark) == 'S')\ntime.sleep(0.3)\ntype('\\x03')\n\
             assert 'went on' not in expect('prompt> ')\ntype('echo back $?\\n')\nexpect('back 130')"
        ));
    }
}

#[test]
fn a_ctrl_z_does_not_suspend_a_daemon_in_front_of_its_command_and_ctrl_c_ends_both() {
    let steps = r"
type(f'TMPDIR={socket} {binary} --dev -- sh -c {chr(34)}echo agent is $((1+1)); exec sleep 1000{chr(34)}\n')
expect('agent is 2')
type('\x1a')
expect('not suspended')
type('\x03')
expect('prompt> ')
type('echo back $?\n')
expect('back 130')
";
    let scratch = tempfile::tempdir().unwrap();
    let program = format!("{SHELL}\n{steps}\ntype('exit\\n')\nprint('done')\n");
    let output = python(&program, &[crate::harness::sidecar::BINARY.as_ref(), scratch.path().as_ref()]);
    assert!(output.status.success() && stdout(&output).ends_with("done\n"), "{}{}", stdout(&output), stderr(&output));
}
