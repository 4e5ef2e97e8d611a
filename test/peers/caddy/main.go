// Caddy with its standard modules, for the tests next to it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // forward_auth and reverse_proxy are among them
)

func main() { caddycmd.Main() }
