-- Asks the daemon whether a request may pass, for haproxy.cfg.
--
-- The device is set here, never taken from the request: a client that can choose it can choose one that is not revoked.
local socket = "unix@/run/machineid/sidecar.sock"
local question = "GET /v1/authz/gateway:reports HTTP/1.0\r\nHost: localhost\r\n\r\n"
-- Seconds; longer than the daemon ever takes (local.check_timeout, 4 s by default). Without a limit, a daemon that hangs would
-- hold each request for as long as its client waits. (Not core.httpclient: its limit is for each of four attempts.)
local most = 5

local function ask()
    local connection = core.tcp()
    connection:settimeout(most)
    local line
    if connection:connect(socket) and connection:send(question) then
        line = connection:receive("*l")
    end
    connection:close()
    return line and line:match("^HTTP/1%.[01] (%d%d%d)")
end

core.register_action("machineid", { "http-req" }, function(txn)
    -- No answer is a no.
    local answered, status = pcall(ask)
    if not answered or (status ~= "200" and status ~= "403") then
        status = "503"
    end
    txn:set_var("txn.machineid", status)
end, 0)
