// Go's net/http. See python_sdks.py for what it reads and prints.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const text = "one two three"

// How the gateway is called: over which transport, and at which address.
type way struct {
	name      string
	base      string
	major     int
	transport *http.Transport
}

var (
	client *http.Client
	base   string
	major  int
)

func send(request *http.Request) (*http.Response, error) {
	response, err := client.Do(request)
	if err == nil && response.ProtoMajor != major {
		return nil, fmt.Errorf("spoke %s", response.Proto)
	}
	return response, err
}

func post(path, body string) (*http.Response, error) {
	request, err := http.NewRequest("POST", base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	request.Header.Set("Content-Type", "application/json")
	return send(request)
}

func chat(model, more string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]%s}`, model, text, more)
}

func modelName() error {
	response, err := post("/v1/chat/completions", chat("demo", ""))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var whole struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.NewDecoder(response.Body).Decode(&whole); err != nil {
		return err
	}
	if len(whole.Choices) != 1 || whole.Choices[0].Message.Content != text {
		return fmt.Errorf("got %v", whole)
	}
	return nil
}

func events(more string) (int, error) {
	response, err := post("/v1/chat/completions", chat("demo", more))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	count := 0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			count++
		}
	}
	return count, lines.Err()
}

func streaming() error {
	count, err := events(`,"stream":true`)
	if err == nil && count != 6 {
		return fmt.Errorf("%d events", count)
	}
	return err
}

func cutStream() error {
	_, err := events(`,"stream":true,"break_after":2`)
	isSeen := err != nil && (strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "INTERNAL_ERROR"))
	if !errors.Is(err, io.ErrUnexpectedEOF) && !isSeen {
		return fmt.Errorf("the cut was not seen: %v", err)
	}
	return nil
}

func reason() error {
	response, err := post("/v1/chat/completions", chat("nothing", ""))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var told struct {
		Error struct{ Message, Code string }
	}
	if err := json.NewDecoder(response.Body).Decode(&told); err != nil {
		return err
	}
	if response.StatusCode != 404 || told.Error.Code != "model_not_found" || told.Error.Message == "" {
		return fmt.Errorf("%d %v", response.StatusCode, told)
	}
	return nil
}

func upload() error {
	reader, writer := io.Pipe()
	go func() {
		for range 64 {
			writer.Write(make([]byte, 65536))
		}
		writer.Close()
	}()
	request, err := http.NewRequest("POST", base+"/f/demo/count", reader)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	response, err := send(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var counted struct{ Bytes int }
	if err := json.NewDecoder(response.Body).Decode(&counted); err != nil {
		return err
	}
	if counted.Bytes != 64*65536 {
		return fmt.Errorf("%d bytes arrived", counted.Bytes)
	}
	return nil
}

// A call that is silent for much longer than the time between two PINGs.
func silentCall() error {
	request, err := http.NewRequest("GET", base+"/f/demo/slow?seconds=2", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	response, err := send(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// Calls of one connection at the same time, some of which are left.
func sideBySide() error {
	results := make(chan error, 40)
	for number := range 40 {
		go func() {
			if number%4 == 0 {
				count, err := events(`,"stream":true`)
				if err == nil && count != 6 {
					err = fmt.Errorf("%d events", count)
				}
				results <- err
				return
			}
			results <- modelName()
		}()
	}
	for range 40 {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

// NVCF's CLI revokes keys in this way: without Authorization, at an address that may have a credential.
func credentialInURL() error {
	made, err := post("/v1/keys", `{"description":"by Go","authorizations":{"policies":[]}}`)
	if err != nil {
		return err
	}
	defer made.Body.Close()
	var key struct{ Id string }
	if err := json.NewDecoder(made.Body).Decode(&key); err != nil {
		return err
	}
	with := strings.Replace(base, "://", "://any:"+os.Getenv("API_KEY")+"@", 1)
	for _, tried := range []struct {
		url    string
		status int
	}{{base, 401}, {with, 204}} {
		request, err := http.NewRequest("DELETE", tried.url+"/v1/keys/"+key.Id, nil)
		if err != nil {
			return err
		}
		response, err := send(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != tried.status {
			return fmt.Errorf("%d in place of %d", response.StatusCode, tried.status)
		}
	}
	return nil
}

func ways() []way {
	pings := &http.HTTP2Config{SendPingTimeout: 200 * time.Millisecond, PingTimeout: 5 * time.Second}
	plain, prior, secure := new(http.Protocols), new(http.Protocols), new(http.Protocols)
	plain.SetHTTP1(true)
	prior.SetUnencryptedHTTP2(true)
	secure.SetHTTP2(true)
	return []way{
		{"HTTP/1.1", os.Getenv("BASE_URL"), 1, &http.Transport{Protocols: plain}},
		{"HTTP/2", os.Getenv("BASE_URL"), 2, &http.Transport{Protocols: prior, HTTP2: pings}},
		{"HTTP/2, TLS", os.Getenv("TLS_URL"), 2, &http.Transport{Protocols: secure, HTTP2: pings}},
	}
}

func main() {
	for _, way := range ways() {
		client, base, major = &http.Client{Transport: way.transport}, way.base, way.major
		for _, tried := range []struct {
			name    string
			attempt func() error
		}{
			{"a model name, from URL and key alone", modelName},
			{"streaming", streaming},
			{"a cut stream is an error", cutStream},
			{"the reason is there", reason},
			{"a chunked upload", upload},
			{"a silent call", silentCall},
			{"calls side by side", sideBySide},
			{"a credential in the URL", credentialInURL},
		} {
			if err := tried.attempt(); err != nil {
				fmt.Printf("FAIL Go net/http, %s: %s: %v\n", way.name, tried.name, err)
			} else {
				fmt.Printf("PASS Go net/http, %s: %s\n", way.name, tried.name)
			}
		}
	}
}
