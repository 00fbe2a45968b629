package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	containers "github.com/google/go-containerregistry/pkg/registry"
)

// runRegistry serves one store of images at two doors: an open one and one
// that wants credentials. Blobs are files; the library keeps manifests in
// memory only, so what changes them is written to a journal and repeated at
// the next start.
func runRegistry(args []string) error {
	flags := flag.NewFlagSet("registry", flag.ExitOnError)
	dir := flags.String("dir", "", "directory of the images")
	open := flags.String("listen", "", "address that anybody may use")
	closed := flags.String("listen-closed", "", "address that wants credentials")
	secret := flags.String("credentials", "", "file with one line, USER:PASSWORD")
	if err := flags.Parse(args); err != nil {
		return err
	}
	user, password, err := readCredentials(*secret)
	if err != nil {
		return err
	}
	store, err := openStore(*dir)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- http.ListenAndServe(*open, store) }()
	go func() { ended <- http.ListenAndServe(*closed, wantsCredentials(store, user, password)) }()
	return <-ended
}

// readCredentials reads a file with one line, USER:PASSWORD.
func readCredentials(file string) (user, password string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	user, password, found := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !found {
		return "", "", fmt.Errorf("%s must hold USER:PASSWORD", file)
	}
	return user, password, nil
}

// wantsCredentials lets only requests with these credentials through.
func wantsCredentials(next http.Handler, user, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		same := subtle.ConstantTimeCompare([]byte(u+":"+p), []byte(user+":"+password)) == 1
		if !same {
			w.Header().Set("WWW-Authenticate", `Basic realm="test bed"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"credentials are needed"}]}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// change is one request that changed a manifest, a line of the journal.
type change struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Type   string `json:"type,omitempty"`
	Body   []byte `json:"body,omitempty"`
}

// store is the library's registry, with manifests that outlive the process.
type store struct {
	images  http.Handler
	lock    sync.Mutex
	journal *os.File
}

func openStore(dir string) (*store, error) {
	blobs := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	images := containers.New(
		containers.WithBlobHandler(containers.NewDiskBlobHandler(blobs)),
		containers.WithReferrersSupport(true),
		containers.Logger(log.New(os.Stderr, "", log.LstdFlags)),
	)
	journal, err := os.OpenFile(filepath.Join(dir, "manifests"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if err := repeat(images, journal); err != nil {
		return nil, err
	}
	return &store{images: images, journal: journal}, nil
}

// repeat does again what the journal tells, in its order: an index comes after
// the manifests it names.
func repeat(images http.Handler, journal io.Reader) error {
	lines := json.NewDecoder(journal)
	for {
		var c change
		if err := lines.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the journal of manifests: %w", err)
		}
		request := httptest.NewRequest(c.Method, c.Path, bytes.NewReader(c.Body))
		request.Header.Set("Content-Type", c.Type)
		images.ServeHTTP(httptest.NewRecorder(), request)
	}
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	changes := r.Method == http.MethodPut || r.Method == http.MethodDelete
	if !changes || !strings.Contains(r.URL.Path, "/manifests/") {
		s.images.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.lock.Lock()
	defer s.lock.Unlock()
	answer := httptest.NewRecorder()
	s.images.ServeHTTP(answer, r)
	if answer.Code < http.StatusMultipleChoices {
		line, err := json.Marshal(change{r.Method, r.URL.Path, r.Header.Get("Content-Type"), body})
		if err == nil {
			_, err = s.journal.Write(append(line, '\n'))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}
