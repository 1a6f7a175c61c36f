// Computes what tlog.rs compares with: every root and proof of logs of up to 130 entries, by the Go implementation of
// transparency logs. Entry i is i in eight bytes, big-endian.
//
//	go mod init tlog && go get golang.org/x/mod && go run tlog.go
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	roots, records, trees := sha256.New(), sha256.New(), sha256.New()
	for size := int64(1); size <= 130; size++ {
		entry := binary.BigEndian.AppendUint64(nil, uint64(size-1))
		hashes, err := tlog.StoredHashes(size-1, entry, reader)
		check(err)
		stored = append(stored, hashes...)
		root, err := tlog.TreeHash(size, reader)
		check(err)
		roots.Write(root[:])
		for index := int64(0); index < size; index++ {
			proof, err := tlog.ProveRecord(size, index, reader)
			check(err)
			for _, hash := range proof {
				records.Write(hash[:])
			}
		}
		for old := int64(1); old <= size; old++ {
			proof, err := tlog.ProveTree(size, old, reader)
			check(err)
			for _, hash := range proof {
				trees.Write(hash[:])
			}
		}
	}
	fmt.Printf("roots       %x\ninclusion   %x\nconsistency %x\n", roots.Sum(nil), records.Sum(nil), trees.Sum(nil))
}
