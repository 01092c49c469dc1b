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
)

const text = "one two three"

func post(path, body string) (*http.Response, error) {
	request, err := http.NewRequest("POST", os.Getenv("BASE_URL")+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	request.Header.Set("Content-Type", "application/json")
	return http.DefaultClient.Do(request)
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
	if !errors.Is(err, io.ErrUnexpectedEOF) && (err == nil || !strings.Contains(err.Error(), "reset")) {
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
	var told struct{ Error struct{ Message, Code string } }
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
	request, err := http.NewRequest("POST", os.Getenv("BASE_URL")+"/f/demo/count", reader)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	response, err := http.DefaultClient.Do(request)
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

func main() {
	for _, tried := range []struct {
		name    string
		attempt func() error
	}{
		{"a model name, from URL and key alone", modelName},
		{"streaming", streaming},
		{"a cut stream is an error", cutStream},
		{"the reason is there", reason},
		{"a chunked upload", upload},
	} {
		if err := tried.attempt(); err != nil {
			fmt.Printf("FAIL Go net/http: %s: %v\n", tried.name, err)
		} else {
			fmt.Printf("PASS Go net/http: %s\n", tried.name)
		}
	}
}
