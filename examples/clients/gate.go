// Asks this host's machineid-sidecar before each task. Standard library only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// ErrDenied says that the answer is no: stop.
var ErrDenied = errors.New("denied")

// ErrUndecided says that no decision is available: stop for now.
var ErrUndecided = errors.New("could not find out whether to go on")

func socketPath() string {
	if named := os.Getenv("MACHINEID_SOCKET"); named != "" {
		return named
	}
	const system = "/run/machineid/sidecar.sock"
	if _, err := os.Stat(system); err == nil {
		return system
	}
	return os.Getenv("XDG_RUNTIME_DIR") + "/machineid/sidecar.sock"
}

var client = http.Client{
	Timeout: 10 * time.Second,
	Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath())
		},
	},
}

// gate returns nil when the answer is yes, and an error for anything else.
func gate() error {
	response, err := client.Get("http://localhost/v1/check")
	if err != nil {
		return fmt.Errorf("%w: no answer from the daemon: %v", ErrUndecided, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%w: a torn answer: %v", ErrUndecided, err)
	}
	var answer struct {
		Code, Reason string
		RequestID    string `json:"request_id"`
	}
	// The text is only for the log: the status decides.
	_ = json.Unmarshal(body, &answer)
	why := fmt.Sprintf("HTTP %d: %s (request_id %s): %s", response.StatusCode, answer.Code, answer.RequestID, answer.Reason)
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrDenied, why)
	default:
		return fmt.Errorf("%w: %s", ErrUndecided, why)
	}
}

func main() {
	for task := 1; task <= 3; task++ {
		if err := gate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			if errors.Is(err, ErrDenied) {
				os.Exit(77)
			}
			os.Exit(75)
		}
		fmt.Println("task", task)
	}
}
