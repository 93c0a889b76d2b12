-- Wireshark and tshark: reads native mode on UDP port 1701 (tshark -X lua_script:twinkey.lua).
-- Decode As udpencap cannot: the L2TP inside ESP has UDP port 1701 too, and would be taken for ESP again.
--
--   FF                 NAT keepalive
--   00 00 00 00 ...    L2TP in clear, behind the marker
--   SPI ...            ESP; what is in it comes back here as UDP port 1701, and is L2TP

local native = Proto("twinkey", "twinkey native mode")
local spi = Field.new("esp.spi")
local esp = Dissector.get("esp")
local ports = DissectorTable.get("udp.port")
local l2tp = ports:get_dissector(1701)

function native.dissector(buffer, packet, tree)
  if spi() then
    return l2tp:call(buffer, packet, tree)
  end
  if buffer:len() == 1 then
    packet.cols.info = "NAT keepalive"
    return 1
  end
  if buffer:len() > 4 and buffer(0, 4):uint() == 0 then
    return l2tp:call(buffer(4):tvb(), packet, tree)
  end
  return esp:call(buffer, packet, tree)
end

ports:set(1701, native)
