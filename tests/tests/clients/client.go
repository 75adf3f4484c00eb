// One GET with Go's own client: it says the body, and in its last line what it knows of the answer.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(string(body) + "\n")
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"status": answer.StatusCode, "protocol": strings.TrimPrefix(answer.Proto, "HTTP/"),
		"reason": answer.Header.Get("X-Bottle-Reason"),
	})
}
