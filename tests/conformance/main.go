// An independent MCP client (the official Go SDK) uses the gateway's tools.
// Prints each check; exits with 1 at the first that fails.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// bearer adds the agent's token to every request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
	return value
}

func check(ok bool, what string) {
	if !ok {
		fmt.Fprintln(os.Stderr, "FAILED:", what)
		os.Exit(1)
	}
	fmt.Println("ok:", what)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool := x509.NewCertPool()
	check(pool.AppendCertsFromPEM(must(os.ReadFile(os.Getenv("HALOPSA_GATEWAY_CA")))), "the gateway's CA is read")
	token := strings.TrimSpace(string(must(os.ReadFile(os.Getenv("HALOPSA_TOKEN_FILE")))))
	endpoint := os.Getenv("HALOPSA_GATEWAY_URL") + "/mcp"
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	connect := func(token string) (*mcp.ClientSession, error) {
		client := mcp.NewClient(&mcp.Implementation{Name: "conformance", Version: "1"}, nil)
		return client.Connect(ctx, &mcp.StreamableClientTransport{
			Endpoint:   endpoint,
			HTTPClient: &http.Client{Transport: bearer{token, transport}},
			MaxRetries: -1,
		}, nil)
	}

	_, err := connect("nonsense")
	check(err != nil, "without a valid token there is no session")

	session := must(connect(token))
	defer session.Close()
	check(session.InitializeResult().ServerInfo.Name == "halopsa-operator", "initialize names the server")
	check(session.InitializeResult().Capabilities.Tools != nil, "the server has tools")
	names := map[string]*mcp.Tool{}
	for tool, err := range session.Tools(ctx, nil) {
		names[must(tool, err).Name] = tool
		check(tool.InputSchema != nil && tool.Description != "" && tool.Annotations != nil, tool.Name+" has schema, description and annotations")
	}
	read, write := names["halopsa_search_tickets"], names["halopsa_update_ticket"]
	check(read != nil && read.Annotations.ReadOnlyHint, "a tool that reads says so")
	check(write != nil && !write.Annotations.ReadOnlyHint && write.Annotations.DestructiveHint != nil && !*write.Annotations.DestructiveHint,
		"a tool that writes says so, and that it destroys nothing")

	found := must(session.CallTool(ctx, &mcp.CallToolParams{Name: "halopsa_search_tickets", Arguments: map[string]any{"query": "printer"}}))
	content, structured := found.StructuredContent.(map[string]any)
	check(!found.IsError && structured && len(content["tickets"].([]any)) > 0, "a call gives structured content")
	check(len(found.Content) > 0, "and the same as text, for clients that know no structure")

	wrong := must(session.CallTool(ctx, &mcp.CallToolParams{Name: "halopsa_search_tickets", Arguments: map[string]any{"limit": "many"}}))
	check(wrong.IsError && len(wrong.Content) > 0, "arguments that do not fit are an error the model can read")
	hidden, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "halopsa_no_such_tool"})
	check(err != nil || hidden.IsError, "a tool that is not there is an error")
	idle := must(session.CallTool(ctx, &mcp.CallToolParams{Name: "halopsa_update_ticket", Arguments: map[string]any{"status": "In Progress"}}))
	check(idle.IsError, "without a plan nothing is changed")
}
