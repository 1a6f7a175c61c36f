// Reads the tiles of a log with the tile code of the Go checksum database, which is not ours.
//
// Usage: tiles DIRECTORY VERIFIER_KEY INDEXES OLD...
//
// The directory holds a C2SP tlog-tiles tree: checkpoint, tile/<L>/<N> and tile/entries/<N>. The checkpoint must be signed
// with the key. Each of the comma-separated INDEXES is proven to be in the log, with the entry from its bundle, and the log is
// proven to continue each OLD, which is size=root with the root in base64.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Height of the tiles; tlog-tiles leaves it out of the paths.
const height = 8

// A directory with tiles.
type directory string

func (d directory) Height() int { return height }

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := os.ReadFile(d.file(tile.Path()))
		if err != nil {
			return nil, err
		}
		all[i] = data
	}
	return all, nil
}

func (d directory) SaveTiles([]tlog.Tile, [][]byte) {}

// Where the tile with this Go path, tile/8/<L>/<N>, lies here.
func (d directory) file(path string) string {
	rest := strings.TrimPrefix(path, fmt.Sprintf("tile/%d/", height))
	rest = strings.Replace(rest, "data/", "entries/", 1)
	return filepath.Join(string(d), "tile", filepath.FromSlash(rest))
}

// The entry at an index, from its bundle.
func (d directory) entry(index, size int64) ([]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: index >> height, W: 1 << height}
	if rest := size - tile.N<<height; rest < int64(tile.W) {
		tile.W = int(rest)
	}
	data, err := os.ReadFile(d.file(tile.Path()))
	if err != nil {
		return nil, err
	}
	for at := tile.N << height; ; at++ {
		if len(data) < 2 {
			return nil, errors.New("the entry bundle ends too early")
		}
		length := int(binary.BigEndian.Uint16(data))
		data = data[2:]
		if len(data) < length {
			return nil, errors.New("the entry bundle ends too early")
		}
		if at == index {
			return data[:length], nil
		}
		data = data[length:]
	}
}

// The head in the directory's checkpoint.
func (d directory) head(key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	text, err := os.ReadFile(filepath.Join(string(d), "checkpoint"))
	if err != nil {
		return tlog.Tree{}, err
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("the checkpoint does not have three lines")
	}
	return tree(lines[1], lines[2])
}

func tree(size, root string) (tlog.Tree, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := base64.StdEncoding.DecodeString(root)
	if err != nil || len(hash) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("%q is no root", root)
	}
	head := tlog.Tree{N: n}
	copy(head.Hash[:], hash)
	return head, nil
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return errors.New("usage: tiles DIRECTORY VERIFIER_KEY INDEXES OLD...")
	}
	from := directory(arguments[0])
	head, err := from.head(arguments[1])
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(head, from)
	for _, text := range strings.Split(arguments[2], ",") {
		index, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(head.N, index, hashes)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		entry, err := from.entry(index, head.N)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if err := tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		fmt.Printf("entry %d is in the log of %d\n", index, head.N)
	}
	for _, text := range arguments[3:] {
		size, root, _ := strings.Cut(text, "=")
		old, err := tree(size, root)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(head.N, old.N, hashes)
		if err != nil {
			return fmt.Errorf("size %d: %w", old.N, err)
		}
		if err := tlog.CheckTree(proof, head.N, head.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("size %d: %w", old.N, err)
		}
		fmt.Printf("the log of %d continues that of %d\n", head.N, old.N)
	}
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
