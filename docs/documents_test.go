// Package docs_test runs the programs that the documents show.
package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

func TestDocuments_GoBlocksAreProgramsThatRun(t *testing.T) {
	documents := []string{"../README.md", "../CODEX.md"}
	for _, pattern := range []string{"*.md", "*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	programs := 0
	for _, document := range documents {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range goBlock.FindAllSubmatch(content, -1) {
			programs++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(document), i), func(t *testing.T) { runProgram(t, block[1]) })
		}
	}
	if programs == 0 {
		t.Error("no document shows a program")
	}
}

// runProgram builds a program as a part of this module and runs it in an empty directory.
func runProgram(t *testing.T, source []byte) {
	directory := t.TempDir()
	sourceFile, program := filepath.Join(directory, "main.go"), filepath.Join(directory, "program.exe")
	if err := os.WriteFile(sourceFile, source, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"go", "vet", sourceFile}, {"go", "build", "-o", program, sourceFile}} {
		if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, output)
		}
	}
	running := exec.Command(program)
	running.Dir = t.TempDir()
	if output, err := running.CombinedOutput(); err != nil {
		t.Errorf("the program failed: %v\n%s", err, output)
	}
}
