// Checks checkpoints, co-signatures, proofs and receipts with Go's own packages.
//
// It reads a list of checks as JSON and writes a list of answers: an empty text, or why the check fails.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// check is what one test asks for. Which fields count depends on the kind.
type check struct {
	Kind        string      `json:"kind"`
	Note        string      `json:"note"`
	Receipt     string      `json:"receipt"`
	Key         string      `json:"key"`
	WitnessKeys []string    `json:"witness_keys"`
	TimeS       uint64      `json:"time_s"`
	Index       int64       `json:"index"`
	Leaf        tlog.Hash   `json:"leaf"`
	Size        int64       `json:"size"`
	Root        tlog.Hash   `json:"root"`
	OldSize     int64       `json:"old_size"`
	OldRoot     tlog.Hash   `json:"old_root"`
	Hashes      []tlog.Hash `json:"hashes"`
}

func main() {
	var checks []check
	if err := json.NewDecoder(os.Stdin).Decode(&checks); err != nil {
		log.Fatal(err)
	}
	answers := make([]string, len(checks))
	for i := range checks {
		if err := checks[i].run(); err != nil {
			answers[i] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}

func (c *check) run() error {
	switch c.Kind {
	case "checkpoint":
		size, root, err := openCheckpoint(c.Note, c.Key)
		if err == nil && (size != c.Size || root != c.Root) {
			err = errors.New("another size or root")
		}
		return err
	case "cosignature":
		time, err := cosignatureTime(c.Note, c.Key)
		if err == nil && time != c.TimeS {
			err = errors.New("another time")
		}
		return err
	case "inclusion":
		return tlog.CheckRecord(c.Hashes, c.Size, c.Root, c.Index, c.Leaf)
	case "consistency":
		return tlog.CheckTree(c.Hashes, c.Size, c.Root, c.OldSize, c.OldRoot)
	case "receipt":
		return c.checkReceipt()
	}
	log.Fatalf("unknown kind of check %q", c.Kind)
	return nil
}

// openCheckpoint returns the size and root of a checkpoint that is signed by the log whose key is given.
func openCheckpoint(signed, key string) (int64, tlog.Hash, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return 0, tlog.Hash{}, errors.New("not three lines about this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return size, root, err
}

// cosignatureTime returns when a note was co-signed with a key, by the words of C2SP tlog-cosignature.
func cosignatureTime(signed, vkey string) (uint64, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return 0, errors.New("malformed key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 0x04 {
		return 0, errors.New("not a key for co-signatures")
	}
	id := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	end := strings.LastIndex(signed, "\n\n")
	if end < 0 {
		return 0, errors.New("no signatures")
	}
	text, lines := signed[:end+1], signed[end+2:]
	for _, line := range strings.Split(lines, "\n") {
		encoded := strings.TrimPrefix(line, "\u2014 "+parts[0]+" ")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if encoded == line || err != nil || !bytes.HasPrefix(signature, id[:4]) {
			continue
		}
		if len(signature) != 4+8+ed25519.SignatureSize {
			return 0, errors.New("a co-signature of another length")
		}
		time := binary.BigEndian.Uint64(signature[4:])
		message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
		if !ed25519.Verify(key[1:], []byte(message), signature[12:]) {
			return 0, errors.New("a bad co-signature")
		}
		return time, nil
	}
	return 0, errors.New("not co-signed")
}

// checkReceipt reads a receipt by the words of C2SP tlog-proof; the log and all witnesses must have signed.
func (c *check) checkReceipt() error {
	end := strings.Index(c.Receipt, "\n\n")
	if end < 0 {
		return errors.New("no checkpoint")
	}
	lines, signed := strings.Split(c.Receipt[:end], "\n"), c.Receipt[end+2:]
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("another format")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return errors.New("no index")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	size, root, err := openCheckpoint(signed, c.Key)
	if err != nil {
		return err
	}
	for _, key := range c.WitnessKeys {
		if _, err := cosignatureTime(signed, key); err != nil {
			return err
		}
	}
	return tlog.CheckRecord(proof, size, root, index, c.Leaf)
}
