// go_names: a Go program without any C, some of whose own functions have the names of an allocator's.
//
// Says "ready PID", waits for a line, calls them over and over while the garbage collector reads the
// stack, says "done N", waits for another line and ends.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	_ "unsafe" // for go:linkname
)

//go:linkname allocate malloc
//go:noinline
func allocate(size int) []byte {
	if size%100 == 0 {
		runtime.GC()
	}
	return make([]byte, size)
}

//go:linkname release free
//go:noinline
func release(block []byte) int { return len(block) }

func main() {
	lines := bufio.NewReader(os.Stdin)
	fmt.Println("ready", os.Getpid())
	lines.ReadString('\n')
	total := 0
	for i := 0; i < 10000; i++ {
		total += release(allocate(i % 1000))
	}
	fmt.Println("done", total)
	lines.ReadString('\n')
}
