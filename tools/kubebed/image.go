package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const imageUsage = "usage: kbed image LAYOUT_DIR NAME:TAG [entry=/PATH | /PATH=FILE | /PATH->TARGET]..."

// makeImage writes an image of one layer, made of files of this machine, as an
// OCI layout directory. The image names no user; /etc/passwd knows root and
// nonroot (65532).
func makeImage(args []string) error {
	if len(args) < 3 {
		return errors.New(imageUsage)
	}
	dir, reference, parts := args[0], args[1], args[2:]
	config := v1.Config{Env: []string{"PATH=/bin:/usr/bin"}, WorkingDir: "/"}
	files := newFiles()
	files.directory("tmp", 0o1777)
	files.add("etc/passwd", []byte("root:x:0:0::/:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n"), 0o644)
	for _, part := range parts {
		if link, target, found := strings.Cut(part, "->"); found {
			files.link(strings.TrimPrefix(link, "/"), target)
			continue
		}
		left, right, found := strings.Cut(part, "=")
		switch {
		case !found:
			return errors.New(imageUsage)
		case left == "entry":
			config.Entrypoint = []string{right}
		default:
			if err := files.copy(strings.TrimPrefix(left, "/"), right); err != nil {
				return err
			}
		}
	}
	layerBytes, err := files.bytes()
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerBytes)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	return writeLayout(dir, reference, config, layer)
}

func writeLayout(dir, reference string, config v1.Config, layer v1.Layer) error {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return out.AppendImage(image, layout.WithAnnotations(map[string]string{"io.containerd.image.name": reference}))
}

// files is a tar archive in which every file's directories come before it.
type files struct {
	buffer bytes.Buffer
	tar    *tar.Writer
	made   map[string]bool
	err    error
}

func newFiles() *files {
	f := &files{made: map[string]bool{".": true}}
	f.tar = tar.NewWriter(&f.buffer)
	return f
}

func (f *files) put(header *tar.Header, data []byte) {
	if f.err == nil {
		f.err = f.tar.WriteHeader(header)
	}
	if f.err == nil {
		_, f.err = f.tar.Write(data)
	}
}

func (f *files) directory(name string, mode int64) {
	if f.made[name] {
		return
	}
	f.directory(path.Dir(name), 0o755)
	f.made[name] = true
	f.put(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (f *files) add(name string, data []byte, mode int64) {
	f.directory(path.Dir(name), 0o755)
	f.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data)
}

func (f *files) link(name, target string) {
	f.directory(path.Dir(name), 0o755)
	f.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (f *files) copy(name, source string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	about, err := os.Stat(source)
	if err != nil {
		return err
	}
	f.add(name, data, int64(about.Mode().Perm()|0o444))
	return nil
}

func (f *files) bytes() ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	err := f.tar.Close()
	return f.buffer.Bytes(), err
}

// push sends an OCI layout directory to a registry over plain HTTP: its one
// image or index, or, when its index.json names several, that index itself.
// Credentials, if any are wanted, are in the environment: KBED_CREDENTIALS
// names a file with one line, USER:PASSWORD.
func push(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: kbed push LAYOUT_DIR HOST:PORT/NAME:TAG")
	}
	reference, err := name.ParseReference(args[1], name.Insecure, name.StrictValidation)
	if err != nil {
		return err
	}
	auth, err := credentials(os.Getenv("KBED_CREDENTIALS"))
	if err != nil {
		return err
	}
	index, err := layout.ImageIndexFromPath(args[0])
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return remote.WriteIndex(reference, index, auth)
	}
	only := manifest.Manifests[0]
	if only.MediaType.IsIndex() {
		inner, err := index.ImageIndex(only.Digest)
		if err != nil {
			return err
		}
		return remote.WriteIndex(reference, inner, auth)
	}
	image, err := index.Image(only.Digest)
	if err != nil {
		return err
	}
	return remote.Write(reference, image, auth)
}

func credentials(file string) (remote.Option, error) {
	if file == "" {
		return remote.WithAuth(authn.Anonymous), nil
	}
	user, password, err := readCredentials(file)
	if err != nil {
		return nil, err
	}
	return remote.WithAuth(&authn.Basic{Username: user, Password: password}), nil
}
